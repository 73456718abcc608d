"""The parts of `benchmarks/optimize.py`: hasten and its peers, measured in one run."""
