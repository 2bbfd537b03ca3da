"""Ratios against other ways of doing the same work: `python -m benchmarks`."""
