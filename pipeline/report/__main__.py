"""Writes a page about a data set: `python -m pipeline.report OUT`."""

import sys

from pipeline.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
