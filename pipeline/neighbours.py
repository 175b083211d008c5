"""Finds the nearest vectors of a data set: `python -m pipeline.neighbours OUT IMAGE_OR_KEY`."""

import sys

from pipeline.commands.neighbours import main

if __name__ == "__main__":
    sys.exit(main())
