"""Prints the first rows and failures of an output data set.

Usage: python scripts/show_embeddings.py OUT
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline import read_embeddings
from pipeline.reader import read_failures

ROWS = 3


def main(output: str) -> None:
    """Prints a few rows and failures of the data set in directory `output`."""
    rows = (row for batch in read_embeddings(output) for row in batch.slice(0, ROWS).to_pylist())
    for row in itertools.islice(rows, ROWS):
        vector = ", ".join(f"{value:.4f}" for value in row["embedding"][:4])
        rest = "".join(f"  {name}={value}" for name, value in row.items() if name not in ("key", "embedding"))
        sys.stdout.write(f"{row['key'].decode()}  [{vector}, ... {len(row['embedding'])} values]{rest}\n")
    for failure in itertools.islice(read_failures(output), ROWS + 1):
        sys.stdout.write(f"{failure.key.decode()}  failed: {failure.reason}: {failure.message}\n")


if __name__ == "__main__":
    main(sys.argv[1])
