"""Prints the first rows and failures of the output of a run.

Usage: python scripts/show_embeddings.py ARGUMENTS_OF_PIPELINE_RUN
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline import RunConfig, read_embeddings
from pipeline.dataset.reader import read_failures

ROWS = 3


def main(args: list[str]) -> None:
    """Prints a few rows and failures of the output of a run with these arguments."""
    output = RunConfig.from_args(args).output.output
    rows = (row for batch in read_embeddings(output) for row in batch.slice(0, ROWS).to_pylist())
    for row in itertools.islice(rows, ROWS):
        vector = ", ".join(f"{value:.4f}" for value in row["embedding"][:4])
        rest = "".join(f"  {name}={value}" for name, value in row.items() if name not in ("key", "embedding"))
        sys.stdout.write(
            f"{row['key'].decode(errors='replace')}  [{vector}, ... {len(row['embedding'])} values]{rest}\n"
        )
    for failure in itertools.islice(read_failures(output), ROWS + 1):
        sys.stdout.write(f"{failure.key.decode(errors='replace')}  failed: {failure.reason}: {failure.message}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
