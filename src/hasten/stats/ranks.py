"""Do the numbers of one group tend to be lower than those of another? By ranks alone, whatever their distributions."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["lower"]


def lower(some: np.ndarray[Any, Any], others: np.ndarray[Any, Any]) -> float:
    """Return the one-sided level at which `some` are lower than `others`: small means that they are. 1 where either is
    empty. Source: Mann and Whitney 1947.
    """
    if not len(some) or not len(others):
        return 1.0
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(some, others, alternative="less").pvalue)
