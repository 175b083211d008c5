"""Checks a data set: `python -m pipeline.verify OUT`."""

import sys

from pipeline.commands.verify import main

if __name__ == "__main__":
    sys.exit(main())
