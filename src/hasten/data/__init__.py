"""Representative data: open it, hash it, split it so that nothing leaks, and judge answers by its metric.

The public face for people who write `--data module:function`: `hasten.data.Dataset` and `hasten.data.Metric`.
"""

from hasten.data.dataset import Dataset
from hasten.data.metrics import Metric

__all__ = ["Dataset", "Metric"]
