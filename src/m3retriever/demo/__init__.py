"""A collection that is on every machine: the docstrings of Python's standard library."""
