"""What Dataflow's --setup_file takes; all about this package is in pyproject.toml."""

from setuptools import setup

setup()
