"""Reads a transform from a file; a kind of file is one class."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.core.errors import UsageError
from pipeline.images.transform import ImageTransform, Triple
from pipeline.images.transforms.registry import FILES


@dataclass(frozen=True)
class FileTransform:
    """The transform in a file.

    Attributes:
      transform: the transform.
      image_size: height and width of the input in pixels; None if the file does not say.
    """

    transform: ImageTransform
    image_size: tuple[int, int] | None = None


class TransformFile(Protocol):
    """A kind of file that describes a transform.

    Attributes:
      title: what the kind is called in messages.
      shares_name: whether files of other purposes have the same name.
    """

    title: str
    shares_name: bool = False

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Returns whether the values of a file are of this kind."""
        ...

    def read(self, values: Mapping[str, Any]) -> FileTransform:
        """Returns the transform.

        Raises:
          UsageError: a value would change the pixels in a way that an `ImageTransform` cannot, or is not valid.
        """
        ...


def read_transform(path: str) -> FileTransform:
    """Reads a file of any kind in `FILES`, under any name.

    Raises:
      UsageError: the file cannot be read, is of no known kind, or cannot be honoured.
    """
    values = _load(Path(os.path.expanduser(path)))
    for name in FILES.names:
        kind: TransformFile = FILES.load(name)()
        if kind.matches(values):
            with _errors_of(path, kind):
                return kind.read(values)
    raise UsageError(f"--preprocess={path}: no known kind of file; expected {_titles()}")


def find_transform(directory: str) -> tuple[str, FileTransform] | None:
    """Returns the first file in a module's directory that describes a transform, with its name; None without one.

    Raises:
      UsageError: there is such a file, and it cannot be read or honoured.
    """
    for name in FILES.names:
        path = Path(directory) / name
        if not path.is_file():
            continue
        kind: TransformFile = FILES.load(name)()
        try:
            values = _load(path)
        except UsageError:
            if kind.shares_name:
                continue
            raise
        if kind.matches(values) or not kind.shares_name:
            with _errors_of(str(path), kind):
                return name, kind.read(values)
    return None


def _load(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"--preprocess={path} cannot be read: {reason}; expected a preset or {_titles()}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"--preprocess={path} is neither JSON nor YAML: {text}; expected {_titles()}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"--preprocess={path} holds no mapping from names to values; expected {_titles()}")
    return values


def _titles() -> str:
    *others, last = (FILES.load(name).title for name in FILES.names)
    return f"{', '.join(others)} or {last}"


@contextmanager
def _errors_of(path: str, kind: TransformFile) -> Iterator[None]:
    """Names the file in the errors of its values."""
    try:
        yield
    except UsageError as error:
        raise UsageError(
            f"{path}: {error}; change the file, or name another --preprocess (a preset or {kind.title})"
        ) from None


def number(values: Mapping[str, Any], key: str) -> float:
    """Returns a finite number.

    Raises:
      UsageError: the value is something else.
    """
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"{key}={value!r}: expected a number")
    return float(value)


def triple(values: Mapping[str, Any], key: str) -> Triple:
    """Returns a number for each channel; one number stands for all.

    Raises:
      UsageError: the value is something else.
    """
    value = values.get(key)
    items = value if isinstance(value, (list, tuple)) else [value]
    if len(items) not in (1, 3):
        raise UsageError(f"{key}={value!r}: expected one number or three")
    red, green, blue = (number({key: item}, key) for item in (items if len(items) == 3 else [*items] * 3))
    return red, green, blue


def whole(values: Mapping[str, Any], key: str) -> int:
    """Returns a number of pixels, at least 1.

    Raises:
      UsageError: the value is something else.
    """
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{key}={value!r}: expected a number of pixels")
    return value
