"""Listing Google Cloud Storage folder by folder; Beam lists a whole prefix in one sequence of requests."""

from __future__ import annotations

import calendar
import datetime
import posixpath
import re
from collections.abc import Iterator

from apache_beam.io.filesystem import FileSystem

from pipeline.storage.object_store import WILDCARD, as_os_error, cloud_client
from pipeline.storage.pages import FilePage, Folder

_FIELDS = "items(name,size,updated),prefixes,nextPageToken"


class CloudListing:
    """Lists folders of a bucket.

    Example:
      ```
      list(CloudListing(None).list_folder(Folder("gs://bucket/photos/", "")))
      ```
    """

    def __init__(self, pattern: str | None) -> None:
        """Prepares to list.

        Args:
          pattern: a glob with Beam's syntax that the files must match; None for all files.
        """
        self._client = cloud_client()
        self._pattern = pattern
        self._is_match = re.compile(FileSystem.translate_pattern(pattern)).match if pattern else None
        # The parts of the pattern that a folder's own path must match: those before the first `**`.
        parts = pattern.split("**", 1)[0].split("/") if pattern else []
        self._levels = [re.compile(FileSystem.translate_pattern(part)) for part in parts[:-1]]
        self._is_bounded = pattern is not None and "**" not in pattern

    def list_folder(self, folder: Folder) -> Iterator[FilePage | Folder]:
        """Yields the matching files of a folder, and its folders that may hold matching files.

        Raises:
          OSError: the folder cannot be listed.
        """
        bucket, _, prefix = folder.path[len("gs://") :].partition("/")
        with as_os_error(folder.path):
            found = self._client.list_blobs(
                bucket, prefix=self._literal_prefix(folder.path, prefix), delimiter="/", fields=_FIELDS
            )
            seen: set[str] = set()
            for page in found.pages:
                names = [(f"gs://{bucket}/{blob.name}", blob) for blob in page if not blob.name.endswith("/")]
                kept = [(path, blob) for path, blob in names if self._is_match is None or self._is_match(path)]
                if kept:
                    yield FilePage(
                        posixpath.dirname(folder.path),
                        [path for path, _ in kept],
                        [int(blob.size or 0) for _, blob in kept],
                        [_seconds(blob.updated) for _, blob in kept],
                    )
                for name in sorted(found.prefixes - seen):
                    path = f"gs://{bucket}/{name}"
                    if self._may_hold_matches(path):
                        yield Folder(path, path)
                seen |= found.prefixes

    def _literal_prefix(self, folder: str, prefix: str) -> str | None:
        """Returns the beginning of the names to list: longer than the folder's if the pattern begins with it."""
        if self._pattern and self._pattern.startswith(folder):
            begin = WILDCARD.split(self._pattern[len(folder) :], maxsplit=1)[0]
            return prefix + posixpath.basename(begin) if "/" not in begin else prefix
        return prefix or None

    def _may_hold_matches(self, folder: str) -> bool:
        parts = folder.rstrip("/").split("/")
        if self._is_bounded and len(parts) > len(self._levels):
            return False
        return all(level.match(part) for level, part in zip(self._levels, parts, strict=False))


def _seconds(updated: datetime.datetime | None) -> float:
    """Returns a time as Beam's file systems do, to the last bit: data sets hold it."""
    return calendar.timegm(updated.utctimetuple()) + updated.microsecond / 1e6 if updated else 0.0
