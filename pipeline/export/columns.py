"""Names of columns that SQL takes."""

from __future__ import annotations

import re

import pyarrow as pa

from pipeline.core.errors import UsageError

_OTHER = re.compile(r"[^A-Za-z0-9_]")


def sql_name(name: str) -> str:
    """Returns a name with letters of ASCII, digits and `_` only, which does not begin with a digit."""
    changed = _OTHER.sub("_", name)
    return f"_{changed}" if changed[:1].isdigit() or not changed else changed


def sql_schema(schema: pa.Schema) -> pa.Schema:
    """Returns a schema whose columns have names that SQL takes.

    Raises:
      UsageError: two columns would have the same name; SQL does not distinguish `a` and `A`.
    """
    taken: dict[str, str] = {}
    for name in schema.names:
        other = taken.setdefault(sql_name(name).lower(), name)
        if other != name:
            raise UsageError(
                f"the columns {other!r} and {name!r} would both be called {sql_name(name)!r}; leave one out with "
                "--columns"
            )
    return pa.schema([item.with_name(sql_name(item.name)) for item in schema], schema.metadata)
