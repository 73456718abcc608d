"""A model that takes one tensor of every element type, and the values that such tensors hold."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import strategies as st

from hasten.spec.tensor import NUMPY_NAMES, DType


class Arrays:
    """Strategies for arrays as hasten carries them, by the element type's name on the wire."""

    @staticmethod
    def of(dtype: DType, *, finite: bool = False, text: bool = False) -> st.SearchStrategy[np.ndarray[Any, Any]]:
        """Arrays of one type. `finite` leaves out NaN and infinity; `text` gives only strings that are UTF-8."""
        shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)
        kind = np.dtype(NUMPY_NAMES[dtype])
        if dtype == "BYTES":
            items = st.text(max_size=8).map(str.encode) if text else st.binary(max_size=8)
            return hnp.arrays(kind, shapes, elements=items)
        if kind.kind == "f" and finite:
            elements = hnp.from_dtype(kind, allow_nan=False, allow_infinity=False)
            return hnp.arrays(kind, shapes, elements=elements)
        return hnp.arrays(kind, shapes)


@pytest.fixture(scope="session")
def arrays() -> type[Arrays]:
    return Arrays
