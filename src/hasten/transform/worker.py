"""The process that applies one step of a recipe: `python -m hasten.transform.worker`.

It reads one request from standard input and answers on the original standard output, both JSON; whatever a library
prints goes to standard error. Its memory goes back to the machine when it ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from hasten.errors import HastenError
from hasten.spec.applied import Applied
from hasten.spec.values import Value
from hasten.spec.variant import Step
from hasten.transform.base import transforms
from hasten.transform.samples import StoredSamples

__all__ = ["Answer", "Request", "main"]


class Request(Value, frozen=True):
    """Apply `step` to the model at `source`, into the empty `folder`, with the samples stored in `samples`.

    With `skips`, apply it once with each of them and keep nothing but the errors.
    """

    step: Step
    source: str
    folder: str
    samples: str
    skips: tuple[tuple[str, ...], ...] = ()


class Answer(Value, frozen=True):
    """What was done and the model file; or, for each of `skips`, the error, None where the step failed; or an error of
    ours by class, message, remedy and code.
    """

    applied: Applied | None = None
    model: str = ""
    errors: tuple[float | None, ...] = ()
    kind: str = ""
    message: str = ""
    remedy: str = ""
    code: str = ""


def main() -> None:
    """Answer the one request."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    answers.write(msgspec.json.encode(_answer(request)))
    answers.close()


def _answer(request: Request) -> Answer:
    step, source, folder = request.step, Path(request.source), Path(request.folder)
    samples, transform = StoredSamples(Path(request.samples)), transforms.get(request.step.transform)
    try:
        if request.skips:
            return Answer(errors=tuple(transform.errors(source, folder, samples, step.options, request.skips)))
        model, applied = transform.run(source, folder, samples, step.options, step.skip)
    except HastenError as error:
        return Answer(kind=type(error).__name__, message=error.message, remedy=error.remedy, code=error.code)
    return Answer(applied=applied, model=model.name)


if __name__ == "__main__":
    main()
