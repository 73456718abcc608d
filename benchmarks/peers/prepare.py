"""Has each peer's model made, once: in a process of its own, with ten minutes, its last words kept where it fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from peers.contestants import Peer
from peers.make import suffix
from peers.olive import command
from peers.subjects import Subject

__all__ = ["TIMEOUT_S", "Refused", "made"]

TIMEOUT_S = 600.0


class Refused(Exception):
    """The tool did not make a model; its words."""


def made(peer: Peer, subject: Subject, folder: Path, olive: Path) -> Path:
    """Return the model file of `peer`, made now or before. Raises `Refused`, again where it failed before."""
    folder, olive = folder.resolve(), olive.absolute()
    if not peer.make:
        return subject.path
    place, failed = folder / "peers" / peer.id, folder / "peers" / f"{peer.id}.refused"
    if failed.exists():
        raise Refused(failed.read_text())
    if not place.exists():
        samples = folder / "calibration"
        if not samples.exists():
            subject.write_calibration(samples)
        partial = place.with_name(f"{peer.id}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _run(_words(peer, subject, samples, partial, olive), partial / "log.txt")
            _model_in(partial)
        except Refused as error:
            failed.write_text(str(error))
            raise
        partial.rename(place)
    return _model_in(place)


def _words(peer: Peer, subject: Subject, samples: Path, folder: Path, olive: Path) -> list[str]:
    if not peer.make.startswith("olive"):
        script = Path(__file__).with_name("make.py")
        out = folder / f"model{suffix(peer.make)}"
        return [sys.executable, str(script), peer.make, str(subject.path), str(samples), str(out)]
    if not olive.exists():
        raise Refused("not installed (make bench-optimize installs it into an environment of its own)")
    return command(olive, peer.make, subject.path, samples, folder)


def _run(words: list[str], log: Path) -> None:
    """Run to the end or for ten minutes, in the log's folder, because some tools leave files where they stand.

    A session of its own, so that Ctrl-C reaches only us, and we end it.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(
            words,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise Refused(f"took longer than {TIMEOUT_S / 60:.0f} minutes") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status:
        raise Refused(_last_words(log))


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if "Error" in line or "Exception" in line] or lines or ["nothing"]
    return f"failed: {said[-1][:240]}"


def _model_in(folder: Path) -> Path:
    for pattern in ("model.onnx", "model.xml", "model.pt2", "**/model.onnx"):
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    raise Refused("wrote no model")
