"""All that clients leave unread together has a bound."""

from __future__ import annotations

import pytest

from hasten.errors import RequestError
from hasten.serve.unread import Unread


def test_what_is_within_the_bound_is_served() -> None:
    unread = Unread(10)
    unread.bytes = 10
    assert not unread.much
    unread.check()


def test_beyond_it_clients_are_told_to_come_back() -> None:
    unread = Unread(10)
    unread.bytes = 11
    assert unread.much
    with pytest.raises(RequestError, match="wait to be read") as caught:
        unread.check()
    assert (caught.value.code, caught.value.retry_after_s) == ("overloaded", 1.0)
