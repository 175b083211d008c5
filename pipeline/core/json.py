"""Frozen dataclasses to JSON and back; parsing checks every type."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, TypeVar, cast

import msgspec

_T = TypeVar("_T")

OMITTED_IF_NONE = {"omitted_if_none": True}
"""Metadata of a field of a dataclass; see `to_json`."""


def to_json(record: Any) -> bytes:
    r"""Returns a record of a dataclass as indented JSON; equal records have equal bytes.

    A field that is declared with the metadata `OMITTED_IF_NONE` is left out if its value is None, so that earlier
    programs, which do not know the field, can read the record.

    Bytes outside UTF-8 appear as lone surrogates, `\udc80` to `\udcff`.
    """
    fields = msgspec.to_builtins(record)
    for item in dataclasses.fields(record):
        if item.metadata.keys() >= OMITTED_IF_NONE.keys() and fields.get(item.name) is None:
            fields.pop(item.name, None)
    return (json.dumps(fields, indent=2, ensure_ascii=True) + "\n").encode()


def to_json_line(record: Any) -> str:
    """Returns a record as one line of JSON, without the line's end."""
    return json.dumps(msgspec.to_builtins(record), ensure_ascii=True)


def from_json(kind: type[_T], data: bytes | str) -> _T:
    """Parses JSON text to a record of a dataclass.

    Raises:
      ValueError: the text is not a JSON object, lacks a field, has an unknown field, or a value has another type than
        the class declares.
    """
    try:
        loaded = json.loads(data)
        record = msgspec.convert(loaded, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    unknown = sorted(loaded.keys() - {item.name for item in dataclasses.fields(cast(Any, kind))})
    if unknown:
        raise ValueError(f"a {kind.__name__} has no field '{unknown[0]}'")
    return record
