"""Describes, exports and fine-tunes modules: `python -m pipeline.hub --help`."""

import sys

from pipeline.commands.hub import main

if __name__ == "__main__":
    sys.exit(main())
