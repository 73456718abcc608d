from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hasten.serve.cache import Cache, key_of
from hasten.spec.request import Request

Inputs = Mapping[str, np.ndarray[Any, Any]]
KINDS = (np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_, np.float16)


def ask(inputs: Inputs, **changed: Any) -> Request:
    return Request(model="m", inputs=inputs, **changed)


def numbered(number: int, **changed: Any) -> Request:
    return ask({"x": np.full((1, 2), number, np.float32)}, **changed)


def outputs(number: float = 0.0, size: int = 4) -> Inputs:
    return {"y": np.full((1, size), number, np.float32)}


def bytes_of(held: Inputs) -> int:
    cache = Cache(10**9)
    cache.put(b"k", held)
    return cache.bytes


def test_what_is_kept_is_a_copy_and_nobody_can_write_to_it() -> None:
    batch = np.arange(8, dtype=np.float32).reshape(4, 2)
    cache = Cache(10**6)
    cache.put(b"k", {"y": batch[1:2]})
    batch[:] = -1
    found = cache.get(b"k")
    assert found is not None
    np.testing.assert_array_equal(found["y"], [[2, 3]])
    with pytest.raises(ValueError, match="read-only"):
        found["y"][0] = 5


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    cache = Cache(2 * bytes_of(outputs()))
    cache.put(b"a", outputs())
    cache.put(b"b", outputs())
    assert cache.get(b"a") is not None
    assert cache.put(b"c", outputs()) == 1
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None


def test_what_is_kept_already_is_not_kept_twice() -> None:
    cache = Cache(10**6)
    assert cache.put(b"a", outputs()) == 0
    assert cache.put(b"a", outputs()) is None
    assert cache.bytes == bytes_of(outputs())


def test_an_answer_larger_than_the_cache_costs_nobody_its_place() -> None:
    cache = Cache(bytes_of(outputs()))
    cache.put(b"a", outputs())
    assert cache.put(b"b", outputs(size=10_000)) is None
    assert cache.get(b"a") is not None


def test_strings_count_with_what_they_hold() -> None:
    short, long = (np.array([[text]], dtype=object) for text in (b"x", b"x" * 100_000))
    assert bytes_of({"y": long}) - bytes_of({"y": short}) == 99_999


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 400), st.booleans()), max_size=60), st.integers(1500, 9000))
def test_the_cache_gives_back_what_was_put_within_its_bytes_and_the_latest_is_there(
    steps: list[tuple[int, int, bool]], capacity: int
) -> None:
    cache = Cache(capacity)
    put = evicted = 0
    for number, size, puts in steps:
        key = key_of(numbered(number))
        if puts:
            gone = cache.put(key, outputs(number, size))
            put += gone is not None
            evicted += gone or 0
            assert gone is None or cache.get(key) is not None
        found = cache.get(key)
        assert found is None or np.all(found["y"] == number)
        assert cache.bytes <= capacity
    assert len(cache) == put - evicted


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    names = draw(st.lists(st.sampled_from(["x", "y", "xy", ""]), min_size=1, max_size=2, unique=True))
    shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    kinds = st.sampled_from(KINDS).map(np.dtype)
    texts = arrays.arrays(object, shapes, elements=st.binary(max_size=3), fill=st.nothing())
    return {name: draw(st.one_of(kinds.flatmap(lambda kind: arrays.arrays(kind, shapes)), texts)) for name in names}


def same(one: Inputs, other: Inputs) -> bool:
    return one.keys() == other.keys() and all(
        (a.dtype, a.shape) == (other[name].dtype, other[name].shape) and _values(a) == _values(other[name])
        for name, a in one.items()
    )


def _values(array: np.ndarray[Any, Any]) -> object:
    return list(array.reshape(-1)) if array.dtype == object else array.tobytes()


@given(inputs(), inputs())
def test_keys_are_equal_exactly_where_the_questions_are(one: Inputs, other: Inputs) -> None:
    assert (key_of(ask(one)) == key_of(ask(other))) == same(one, other)
    copied = dict(reversed([(name, np.array(array, order="F")) for name, array in one.items()]))
    assert key_of(ask(one)) == key_of(ask(copied))


@pytest.mark.parametrize("changed", [{"model": "n"}, {"version": "2"}, {"outputs": ("y",)}, {"outputs": ("y", "z")}])
def test_another_model_version_or_choice_of_outputs_is_another_question(changed: dict[str, Any]) -> None:
    assert key_of(numbered(1)) != key_of(msgspec.structs.replace(numbered(1), **changed))


@pytest.mark.parametrize(
    "changed", [{"id": "7"}, {"priority": 1}, {"timeout_us": 9}, {"binary_outputs": frozenset("y")}]
)
def test_who_asks_and_how_the_answer_is_sent_make_no_other_question(changed: dict[str, Any]) -> None:
    assert key_of(numbered(1)) == key_of(numbered(1, **changed))


def test_strings_do_not_run_together() -> None:
    one, other = (np.array(parts, dtype=object) for parts in ([b"ab", b"c"], [b"a", b"bc"]))
    assert key_of(ask({"x": one})) != key_of(ask({"x": other}))
