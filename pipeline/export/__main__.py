"""Exports a data set to another system's form: `python -m pipeline.export --help`."""

import sys

from pipeline.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
