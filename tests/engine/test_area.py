"""Shared memory that grows on one side and is followed by the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from hasten.engine import area as module
from hasten.engine.area import Area


@pytest.fixture(params=["memfd", "file"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Area, Area]]:
    """A writer and a reader of one area, as two processes have them; also where there is no memfd."""
    if request.param == "file":
        monkeypatch.delattr(module.os, "memfd_create")
        monkeypatch.delattr(module.os, "posix_fallocate")
    writer = Area.create()
    reader = Area(os.dup(writer.fd))
    yield writer, reader
    writer.close()
    reader.close()


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 5_000_000])
def test_what_one_side_writes_the_other_side_sees(pair: tuple[Area, Area], size: int) -> None:
    writer, reader = pair
    writer.room(size)[size - 1] = 7
    assert reader.view(size)[size - 1] == 7
    writer.room(size)[size - 1] = 8
    assert reader.view(size)[size - 1] == 8


def test_arrays_over_the_memory_before_it_grew_stay_valid(pair: tuple[Area, Area]) -> None:
    writer, reader = pair
    writer.room(4)[:4] = b"abcd"
    before = np.frombuffer(reader.view(4), np.uint8, 4)
    writer.room(1_000_000)[999_999] = 1
    assert reader.view(1_000_000)[999_999] == 1
    assert before.tobytes() == b"abcd"


def test_memory_that_suffices_is_not_mapped_anew(pair: tuple[Area, Area]) -> None:
    writer, _ = pair
    assert writer.room(100_000) is writer.room(50)


def test_a_size_that_was_never_written_is_refused(pair: tuple[Area, Area]) -> None:
    writer, reader = pair
    writer.room(10)
    for size in (0, 10**9):
        with pytest.raises(ValueError, match="announced"):
            reader.view(size)


def test_memory_that_the_machine_cannot_spare_is_an_error_and_what_was_there_stays(
    pair: tuple[Area, Area], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, _ = pair
    writer.room(1)[0] = 5
    left = SimpleNamespace(available=200_000)
    monkeypatch.setattr(module, "psutil", SimpleNamespace(virtual_memory=lambda: left))
    assert len(writer.room(65_537)) == 131_072
    with pytest.raises(MemoryError):
        writer.room(131_073)
    assert writer.room(1)[0] == 5


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux seals memory")
def test_the_other_side_cannot_cut_memory_off_under_us() -> None:
    area = Area.create()
    area.room(1)
    with pytest.raises(PermissionError):
        os.ftruncate(area.fd, 0)
    area.close()
