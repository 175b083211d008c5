"""Measures this pipeline and its peers on the same records; see `python -m benchmarks.run --help`."""
