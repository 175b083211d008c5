"""Measures this pipeline and its peers on the same records. `python -m benchmarks.run --help` tells how."""
