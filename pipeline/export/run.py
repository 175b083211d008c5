"""One export: `export`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipeline.core.errors import UsageError
from pipeline.core.settings import TIMESTAMP_COLUMN
from pipeline.dataset.table import open_table
from pipeline.export.base import Destination, Exported, ExportSettings
from pipeline.export.registry import DESTINATIONS
from pipeline.storage import filesystem


def export(
    source: str | os.PathLike[str],
    to: str,
    settings: ExportSettings,
    *,
    columns: Sequence[str] | None = None,
    existing_only: bool = False,
) -> Exported:
    """Brings the export in `settings.output` to the present state of a data set.

    Args:
      source: directory of the data set.
      to: name of the destination.
      settings: of the export.
      columns: names of the copied columns to export; None for all.
      existing_only: whether to leave out rows whose input does not exist any more.

    Raises:
      UsageError: as `read_table` and `Destination.export`.
      OSError: a file cannot be read or written.
    """
    destination: Destination = DESTINATIONS.load(to)()
    source, output = filesystem.absolute(source), filesystem.absolute(settings.output)
    if f"{output}/".startswith(f"{source}/") or f"{source}/".startswith(f"{output}/"):
        raise UsageError(f"--output={output} and the data set {source} lie in each other; name another directory")
    wanted = None if columns is None else ("key", "embedding", *columns, TIMESTAMP_COLUMN)
    table = open_table(source, columns=wanted, existing_only=existing_only)
    return destination.export(table, settings)
