"""The column of a table that holds its images, and their values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.failures import Failure, FailureReason
from pipeline.core.settings import InputConfig
from pipeline.inputs.base import InputFile, ReadSettings
from pipeline.inputs.referenced import read_referenced
from pipeline.inputs.sniff import is_image

_PROBED_ROWS = 16


@dataclass(frozen=True)
class ImageColumn:
    """The column that holds the images.

    Attributes:
      name: of the column.
      has_bytes: whether it holds encoded images, alone or as the field `bytes` of a struct.
      has_paths: whether it holds paths of files, alone or as the field `path` of a struct.
    """

    name: str
    has_bytes: bool
    has_paths: bool

    def read(self, rows: pa.RecordBatch, file: InputFile, settings: ReadSettings) -> Iterator[bytes | Failure]:
        """Yields the encoded image of each row, or a failure, whose key and source have no meaning.

        Args:
          rows: some rows.
          file: their file; the paths of images are relative to its directory.
          settings: of the reader.
        """
        column = rows.column(self.name)
        images: list[bytes | None] = [None] * len(column)
        paths: list[str | None] = [None] * len(column)
        if pa.types.is_struct(column.type):
            fields = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
            images = fields["bytes"].to_pylist() if self.has_bytes else images
            paths = fields["path"].to_pylist() if self.has_paths else paths
        elif self.has_bytes:
            images = column.to_pylist()
        else:
            paths = column.to_pylist()
        missing = [path for image, path in zip(images, paths, strict=True) if image is None and path]
        found = read_referenced(missing, file, settings)
        for image, path in zip(images, paths, strict=True):
            if image is None and path:
                yield next(found)
            elif image is None:
                yield _failure("missing_feature", f"no image: column '{self.name}' holds no value in this row")
            elif len(image) > settings.max_image_bytes:
                text = (
                    f"the image has {len(image)} bytes, more than the {settings.max_image_bytes} that --max_image_bytes"
                )
                yield _failure("too_large", f"{text} allows")
            else:
                yield image


def find_image_column(file: pq.ParquetFile, config: InputConfig) -> ImageColumn | str:
    """Returns the column of a file that holds its images, or the reason as a text why none can be chosen.

    By its name; else the one that Hugging Face's metadata says to be an image; else the only struct or binary column;
    else the only one of these with an image in the first rows that can be read.
    """
    schema: pa.Schema = file.schema_arrow
    names = ", ".join(schema.names)
    if config.image_feature is not None:
        if config.image_feature not in schema.names:
            found = _by_content(file, _candidates(schema))
            choice = found[0].name if found else "NAME"
            return f"has {names}, but no {config.image_feature}; say --image_feature={choice}"
        item = schema.field(config.image_feature)
        column = _as_column(item) or (ImageColumn(item.name, False, True) if _is_text(item.type) else None)
        return column or f"holds {item.type} in {item.name}; expected encoded images, or paths of files"
    candidates = _candidates(schema)
    declared = [column for column in candidates if column.name in _declared_images(schema)]
    if len(declared) == 1 or len(candidates) == 1:
        return (declared or candidates)[0]
    found = _by_content(file, candidates)
    if len(found) == 1:
        return found[0]
    if found:
        several = " and ".join(column.name for column in found)
        return f"holds images in {several}; say --image_feature={found[0].name}"
    return f"has {names}, none of which holds images; say --image_feature=NAME of the images or of their paths"


def _candidates(schema: pa.Schema) -> list[ImageColumn]:
    return [column for column in map(_as_column, schema) if column is not None]


def _as_column(item: pa.Field) -> ImageColumn | None:
    """Returns a column of encoded images, if it may be one by its type."""
    if pa.types.is_struct(item.type):
        fields = {field.name: field.type for field in item.type}
        if "bytes" in fields and _is_binary(fields["bytes"]):
            return ImageColumn(item.name, True, "path" in fields and _is_text(fields["path"]))
        return None
    return ImageColumn(item.name, True, False) if _is_binary(item.type) else None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _declared_images(schema: pa.Schema) -> set[str]:
    """Returns the names of the image columns by the metadata that Hugging Face's `datasets` writes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name for name, feature in features.items() if feature["_type"] == "Image"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return set()


def _by_content(file: pq.ParquetFile, candidates: list[ImageColumn]) -> list[ImageColumn]:
    """Returns the columns that have an image in the first rows of a file."""
    if not candidates:
        return []
    names = [column.name for column in candidates]
    for group in range(file.num_row_groups):
        try:
            rows = next(file.iter_batches(_PROBED_ROWS, row_groups=[group], columns=names, use_threads=False), None)
        except (OSError, pa.ArrowException):  # damaged; the next one may be readable
            continue
        if rows is not None:
            return [column for column in candidates if any(map(is_image, _encoded(rows.column(column.name))))]
    return []


def _encoded(column: pa.Array) -> list[bytes | None]:
    values: list[bytes | None] = (column.field("bytes") if pa.types.is_struct(column.type) else column).to_pylist()
    return values


def _failure(reason: FailureReason, text: str) -> Failure:
    return Failure(b"", "", "read", reason, text)
