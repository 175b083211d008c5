"""`python -m pipeline`: lists the commands."""

import sys

from pipeline.commands.overview import main

if __name__ == "__main__":
    sys.exit(main())
