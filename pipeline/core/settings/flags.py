"""The declaration of a flag, and the functions that parse a value of one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.suggestions import describe_unknown

_BYTE_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_BYTE_UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def flag(
    text: str,
    *,
    default: Any = dataclasses.MISSING,
    parse: Callable[[str], Any] = str,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    repeat: bool = False,
) -> Any:
    """Declares a field that is a flag; with `repeat`, repeated uses form a tuple."""
    metadata = {"help": text, "parse": parse, "choices": choices, "metavar": metavar, "repeat": repeat}
    return field(default=default, metadata=metadata)


def check_choices(config: Any) -> None:
    """Refuses a value that the command line would refuse too.

    Raises:
      UsageError: a field with choices has another value.
    """
    for item in dataclasses.fields(config):
        value, choices = getattr(config, item.name), item.metadata["choices"]
        if choices and value not in choices and (value is not None or item.default is not None):
            raise UsageError(f"--{item.name}={describe_unknown(value, choices)}")


def parse_bytes(text: str) -> int:
    """Parses a number of bytes, such as `500000`, `64MiB` or `2GB`.

    Raises:
      UsageError: `text` is not a positive number with one of these units.
    """
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*", text)
    unit = _BYTE_UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise UsageError(f"{text!r} is not a size in bytes; write a number with or without a unit, like 64MiB")
    return int(float(match[1]) * unit)


def parse_image_size(text: str) -> tuple[int, int]:
    """Parses (height, width) in pixels from text such as `160,160`.

    Raises:
      UsageError: `text` is not two positive whole numbers.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
    if match is None or not (int(match[1]) and int(match[2])):
        raise UsageError(f"image size {text!r} is not a height and a width in pixels; write it like 160,160")
    return int(match[1]), int(match[2])


def parse_names(text: str) -> tuple[str, ...]:
    """Parses a comma-separated list of names; drops repeats."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
