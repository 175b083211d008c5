"""The rows of a data set that are nearest to an image, found in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError, UsageError
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import ImageRecord
from pipeline.dataset.metadata import require_spec
from pipeline.dataset.reader import read_embeddings
from pipeline.embedding.from_dataset import embedder_of
from pipeline.report.analysis import normalized
from pipeline.report.page import render
from pipeline.report.sample import to_vectors
from pipeline.report.text import show_key, show_text
from pipeline.report.thumbnails import DATA_URI, ThumbnailMaker, read_thumbnails
from pipeline.storage import filesystem

_SIDE = 160
_THUMBNAIL_BYTES = 8_000_000


@dataclass(frozen=True)
class Query:
    """What the neighbours of are asked for.

    Attributes:
      name: the key, or the path of the image.
      vector: float32 [D].
      image: the encoded image if it is a file; None for a key of the data set.
    """

    name: str
    vector: NDArray[np.float32]
    image: bytes | None


@dataclass(frozen=True)
class Neighbour:
    """A row near a query.

    Attributes:
      key: of the row.
      cosine: cosine similarity, -1 to 1; 0 if one of the vectors is all zeros.
      distance: L2 norm of the difference of the stored vectors.
    """

    key: bytes
    cosine: float
    distance: float


def find_query(
    output: str, image_or_key: str, *, module: str | None = None, allow_unsafe_module: bool = False
) -> Query:
    """Returns the vector of a key, or that of an image file, which the data set's module then embeds.

    Args:
      output: directory of the data set.
      image_or_key: a key of the data set, or else the path of an image.
      module: handle of the module, if it is no longer that in the spec.
      allow_unsafe_module: see `--allow_unsafe_module`.

    Raises:
      InputError: there is neither such a key nor such a file, or the file cannot be embedded.
      OutputError: there is no data set in `output`, or it is damaged.
      ModuleError: the module cannot be found or used, or has another digest.
    """
    output = filesystem.normalize(output)
    spec = require_spec(output)
    key = key_to_bytes(image_or_key)
    for rows in read_embeddings(output):
        keys = rows.column("key").to_pylist()
        if key in keys:
            vectors = to_vectors(rows.column("embedding"), spec.dimension)
            return Query(image_or_key, vectors[keys.index(key)].copy(), None)
    path = filesystem.normalize(image_or_key)
    if filesystem.find_file(path) is None:
        raise InputError(
            f"{show_text(image_or_key)} is neither a key of {output} nor an image file; name one of its keys as they "
            "stand in the data set, or a file"
        )
    image = filesystem.read_bytes(path)
    with embedder_of(output, spec, module=module, allow_unsafe_module=allow_unsafe_module) as embedder:
        batch = embedder.embed([ImageRecord(key, path, image)])
    for failure in batch.failures:
        raise InputError(f"{show_text(image_or_key)} cannot be embedded: {failure.reason}: {failure.message}")
    return Query(image_or_key, to_vectors(batch.rows[0].column("embedding"), spec.dimension)[0].copy(), image)


def find_neighbours(output: str, query: Query, count: int) -> tuple[Neighbour, ...]:
    """Returns the rows with the largest cosine similarity to a query, the nearest first; not the query's own key.

    Reads the data set once; the memory holds one batch of rows.

    Args:
      output: directory of the data set.
      query: the vector.
      count: number of rows to return, if there are so many; at least 1.

    Raises:
      UsageError: `count` is below 1.
      OutputError: there is no data set in `output`, or it is damaged.
    """
    if count < 1:
        raise UsageError(f"--count={count}: expected at least 1")
    own = key_to_bytes(query.name) if query.image is None else None
    unit = normalized(query.vector[np.newaxis])[0]
    best: list[Neighbour] = []
    for rows in read_embeddings(output):
        vectors = to_vectors(rows.column("embedding"), len(unit))
        cosines = normalized(vectors) @ unit
        # One more than asked for: the query's own row may be among them.
        nearest = np.argsort(-cosines, kind="stable")[: count + 1]
        keys = rows.column("key")
        for index in nearest:
            key = keys[int(index)].as_py()
            if key != own:
                distance = float(np.linalg.norm(vectors[index] - query.vector))
                best.append(Neighbour(key, min(1.0, float(cosines[index])), distance))
        best = sorted(best, key=lambda item: (-item.cosine, item.distance, item.key))[:count]
    return tuple(best)


@dataclass(frozen=True)
class _Shown:
    key: str
    thumbnail: str
    note: str


def neighbours_page(output: str, query: Query, found: Sequence[Neighbour]) -> bytes:
    """Returns a page that shows a query and its neighbours.

    Raises:
      OutputError: the data set is damaged.
    """
    output = filesystem.normalize(output)
    make = ThumbnailMaker(require_spec(output).preprocessing.exif_orientation)
    keys = [item.key for item in found]
    thumbnails = dict(read_thumbnails(output, [*keys, key_to_bytes(query.name)], (), _THUMBNAIL_BYTES, make))
    own = thumbnails.get(key_to_bytes(query.name), "") if query.image is None else make(query.image, _SIDE)
    return render(
        "neighbours.html.j2",
        title=show_text(query.name),
        output=show_text(output),
        query=_Shown(show_text(query.name), DATA_URI + own if own else "", ""),
        found=[
            _Shown(
                show_key(item.key),
                DATA_URI + thumbnails[item.key] if thumbnails.get(item.key) else "",
                f"similarity {item.cosine:.4f}",
            )
            for item in found
        ],
    )
