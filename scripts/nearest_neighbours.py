"""Measures how well embeddings separate classes: does a held-out image have the class of its nearest neighbour?

Both data sets are outputs of `pipeline.run --passthrough=LABEL`. Neighbours are compared by cosine similarity.

Usage: python scripts/nearest_neighbours.py LABEL TRAIN_OUTPUT HELD_OUT_OUTPUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.dataset.reader import read_embeddings


def load(output: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the embeddings of a data set, float32 [N, D] of length 1, and its labels [N]."""
    vectors, labels = [], []
    for rows in read_embeddings(output):
        column = rows.column("embedding")
        vectors.append(column.flatten().to_numpy().reshape(len(column), -1))
        labels += [values[0] for values in rows.column(label).to_pylist()]
    stacked = np.concatenate(vectors)
    return stacked / np.linalg.norm(stacked, axis=1, keepdims=True), np.array(labels)


def main(label: str, train: str, held_out: str) -> None:
    """Prints the share of held-out images whose nearest training image has the same class."""
    known, known_labels = load(train, label)
    asked, asked_labels = load(held_out, label)
    nearest = (asked @ known.T).argmax(axis=1)
    share = (known_labels[nearest] == asked_labels).mean()
    sys.stdout.write(f"{share:.1%} of {len(asked)} held-out images have a nearest neighbour of their own class\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
