"""Apply a step of a recipe in a process of its own: a crash, a hang or a leak of a library costs that step only."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hasten import errors
from hasten.spec.applied import Applied
from hasten.spec.variant import Step
from hasten.transform.base import TransformFailed
from hasten.transform.worker import Answer, Request

__all__ = ["TIMEOUT_S", "apply_isolated", "errors_isolated"]

TIMEOUT_S = 900.0
COMMAND = ("-m", "hasten.transform.worker")


def apply_isolated(
    step: Step, source: Path, folder: Path, samples: Path, *, timeout_s: float = TIMEOUT_S
) -> tuple[Path, Applied]:
    """Apply `step` to the model at `source`; return the model file in `folder`, and what was done.

    Raises `TransformFailed` with the reason, a death or a silence of `timeout_s` seconds included.
    """
    request = Request(step=step, source=str(source.resolve()), folder=str(folder.resolve()), samples=str(samples))
    answer = _asked(request, timeout_s)
    if answer.applied is None:
        raise _rebuilt(answer)
    return folder / answer.model, answer.applied


def errors_isolated(
    step: Step, source: Path, samples: Path, skips: Sequence[Sequence[str]], *, timeout_s: float = TIMEOUT_S
) -> list[float | None]:
    """Return the error of the model's outputs after `step` with each of `skips` as its own; None where it fails.

    One process does it all, since starting one takes longer than most steps. Raises `TransformFailed` where it dies or
    the step does not apply.
    """
    with tempfile.TemporaryDirectory(prefix="hasten-errors-") as folder:
        tried = tuple(tuple(skip) for skip in skips)
        request = Request(step=step, source=str(source.resolve()), folder=folder, samples=str(samples), skips=tried)
        answer = _asked(request, timeout_s)
    if answer.kind:
        raise _rebuilt(answer)
    return list(answer.errors)


def _asked(request: Request, timeout_s: float) -> Answer:
    step = request.step
    with tempfile.TemporaryFile() as log:
        # A session of its own, so that Ctrl-C reaches only us, and we end it.
        process = subprocess.Popen(
            [sys.executable, *COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            raw, _ = process.communicate(msgspec.json.encode(request), timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TransformFailed(f"{step.transform} took longer than {timeout_s:.0f} s and was ended.") from error
        finally:
            process.kill()
            # Closes the pipes and reaps it; nothing is left to read from a process that was ended.
            process.communicate()
        if process.returncode or not raw:
            log.seek(0)
            raise TransformFailed(_death(step, process.returncode, log.read()[-4000:]))
    return msgspec.json.decode(raw, type=Answer)


def _death(step: Step, status: int, log: bytes) -> str:
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    lines = log.decode(errors="replace").strip().splitlines()
    last = f" It last said: {lines[-1][:300]}" if lines else ""
    return f"{step.transform} failed: its process died ({how}).{last}"


def _rebuilt(answer: Answer) -> errors.HastenError:
    if answer.kind == TransformFailed.__name__:
        return TransformFailed(answer.message, remedy=answer.remedy, code=answer.code)
    kind = getattr(errors, answer.kind, errors.HastenError)
    return kind(answer.message, remedy=answer.remedy, code=answer.code)
