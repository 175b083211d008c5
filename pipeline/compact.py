"""Drops superseded rows of a data set: `python -m pipeline.compact OUT`."""

import sys

from pipeline.commands.compact import main

if __name__ == "__main__":
    sys.exit(main())
