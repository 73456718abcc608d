from __future__ import annotations

import pytest

from hasten.errors import RequestError
from hasten.serve.http.message import refusal, render


def answer(error: RequestError) -> bytes:
    status, encoded = refusal(error)
    return b"".join(bytes(piece) for piece in render(status, encoded, ""))


@pytest.mark.parametrize(("after_s", "told"), [(0.001, "1"), (1.0, "1"), (1.001, "2"), (60.0, "60")])
def test_when_to_come_back_is_told_in_whole_seconds(after_s: float, told: str) -> None:
    text = answer(RequestError("The queue is full.", code="overloaded", retry_after_s=after_s)).decode()
    assert text.startswith("HTTP/1.1 429 ")
    assert f"\r\nretry-after: {told}\r\n" in text


def test_refusals_that_were_told_before_are_told_apart() -> None:
    errors = [
        RequestError(message, code=code, retry_after_s=after_s)
        for message in ("The queue is full.", "The answer would come too late.")
        for code in ("overloaded", "unavailable", "deadline")
        for after_s in (None, 1.5)
    ]
    first = [answer(error) for error in errors]
    assert len(set(first)) == len(errors)
    assert [answer(error) for error in errors] == first


def test_of_many_different_refusals_only_some_are_remembered() -> None:
    for number in range(1000):
        text = answer(RequestError(f"No {number}.", code="overloaded"))
        assert f"No {number}.".encode() in text
