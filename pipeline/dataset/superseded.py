"""Which rows and failures newer waves of a data set supersede."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.core.failures import Failure
from pipeline.core.keys import from_column, key_to_bytes, key_to_text
from pipeline.core.records import Address
from pipeline.dataset.metadata import Manifest
from pipeline.dataset.tables import InputEntry, copy_inputs, read_retried
from pipeline.storage.tables import Scratch, read_batches

_SLASH = ord("/")


@dataclass(frozen=True, slots=True)
class KeyWaves:
    """The waves that hold a key. Waves are numbers.

    Attributes:
      oldest: the oldest wave with a row or a failure of the key.
      newest: the newest wave with a row or a failure of the key.
      newest_row: the newest wave with a row of the key; -1 if there is none.
      failed: the newest wave with a failure of the key, by possible input of the failure.
    """

    oldest: int
    newest: int
    newest_row: int = -1
    failed: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_row(cls, wave: int) -> KeyWaves:
        """Returns the one wave of a row."""
        return cls(wave, wave, wave)

    @classmethod
    def of_failure(cls, failure: Failure, wave: int) -> KeyWaves:
        """Returns the one wave of a failure."""
        return cls(wave, wave, failed=dict.fromkeys(_paths_of(failure), wave))

    @classmethod
    def merge(cls, items: Iterable[KeyWaves]) -> KeyWaves:
        """Returns the waves of several rows and failures with the same key."""
        items = tuple(items)
        failed: dict[str, int] = {}
        for item in items:
            for path, wave in item.failed.items():
                failed[path] = max(wave, failed.get(path, -1))
        return cls(
            min(item.oldest for item in items),
            max(item.newest for item in items),
            max(item.newest_row for item in items),
            failed,
        )


@dataclass
class Superseded:
    """The newest waves of names, keys, inputs and retried failures; older rows and failures of these do not count.

    Keys that are made of input names are compared by these names; only names of several waves are held, so that memory
    grows with what changed. Keys from a feature or from a custom pipeline are held one by one.
    """

    _names: dict[bytes, int] = field(default_factory=dict)
    _record_names: dict[bytes, int] = field(default_factory=dict)
    _paths: dict[str, int] = field(default_factory=dict)
    _retried: dict[str, int] = field(default_factory=dict)
    _keys: dict[bytes, int] = field(default_factory=dict)
    _failed: dict[bytes, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, output: str, manifests: Sequence[Manifest]) -> Superseded:
        """Returns what the inputs of live waves supersede.

        Args:
          output: directory of the data set.
          manifests: of the live waves.

        Raises:
          OutputError: a manifest's table cannot be read.
        """
        found = cls()
        if len(manifests) < 2:
            return found
        for manifest in manifests:
            for source in read_retried(output, manifest):
                found._retried[source] = int(manifest.wave)
        scratch = Scratch()
        covered = copy_inputs(output, manifests, scratch, "covered.parquet")
        repeated = scratch.path("repeated.parquet")
        # If keys are arbitrary, a name of one wave may be a key of any other.
        least = 2 if all(manifest.has_keys_from_names for manifest in manifests) else 1
        with scratch.database() as database:
            database.execute(
                f"COPY (SELECT name, path, keys, wave FROM read_parquet('{covered}') WHERE name IN (SELECT name FROM "
                f"read_parquet('{covered}') GROUP BY name HAVING count(*) >= {least}) ORDER BY wave) TO '{repeated}'"
            )
        for rows in read_batches(repeated):
            columns = (rows.column(name).to_pylist() for name in ("name", "path", "keys", "wave"))
            for name, path, keys, wave in zip(*columns, strict=True):
                found._add_input(from_column(name), from_column(path), keys, wave)
        return found

    def _add_input(self, name: str, path: str, keys: str, wave: int) -> None:
        if keys == "feature":
            self._paths[path] = wave
            return
        for key in _forms(key_to_bytes(name)):
            self._names[key] = wave
            if keys == "offset":
                self._record_names[key] = wave

    def add_gone(self, inputs: Iterable[InputEntry]) -> None:
        """Adds inputs that are gone: their rows do not count. Keys from a feature are not compared."""
        for entry in inputs:
            self._add_input(entry.name, entry.path, entry.keys, sys.maxsize)

    def add_keys(self, keys: Iterable[bytes], wave: int) -> None:
        """Adds keys of a wave's rows; waves are added from the newest to the oldest."""
        for key in keys:
            for form in _forms(key):
                self._keys.setdefault(form, wave)

    def add_failure(self, failure: Failure, wave: int) -> None:
        """Adds the key of a wave's failure, which supersedes only rows of the same input."""
        for form in _forms(failure.key):
            waves = self._failed.setdefault(form, {})
            for path in _paths_of(failure):
                waves.setdefault(path, wave)

    def add_waves(self, key: bytes, waves: KeyWaves) -> None:
        """Adds a key with all its waves: for callers that read the waves in any order, and filter the keys."""
        for form in _forms(key):
            if waves.newest_row >= 0:
                self._keys[form] = waves.newest_row
            if waves.failed:
                self._failed[form] = dict(waves.failed)

    def select(self, rows: pa.RecordBatch, wave: int, inputs: Set[str]) -> pa.RecordBatch:
        """Returns the rows of a wave that no newer wave supersedes.

        Args:
          rows: of the wave.
          wave: its number.
          inputs: the files that the wave covers; used only if keys are arbitrary.
        """
        if not (self._names or self._keys or self._failed):
            return rows
        keep = [not self.holds_row(key, wave, inputs) for key in rows.column("key").to_pylist()]
        return rows if all(keep) else rows.filter(pa.array(keep))

    def holds_row(self, key: bytes, wave: int, inputs: Set[str]) -> bool:
        """Returns whether a newer wave supersedes a row of a wave; arguments as in `select`."""
        return (
            self._keys.get(key, -1) > wave
            or any(newer > wave and path in inputs for path, newer in self._failed.get(key, {}).items())
            or self._is_named_like_an_input(key, wave)
        )

    def holds_failure(self, failure: Failure, wave: int, *, by_key: bool) -> bool:
        """Returns whether a newer wave has read the input of a failure again, or has retried its record.

        Args:
          failure: the failure of an older wave.
          wave: number of that wave.
          by_key: whether only the key identifies the record.
        """
        return (
            self._retried.get(failure.source, -1) > wave
            or self._retried.get(key_to_text(failure.key), -1) > wave  # written by earlier versions
            or any(self._paths.get(path, -1) > wave for path in _paths_of(failure))
            or self._is_named_like_an_input(failure.key, wave)
            or (
                by_key and (self._keys.get(failure.key, -1) > wave or _newest(self._failed.get(failure.key, {})) > wave)
            )
        )

    def _is_named_like_an_input(self, key: bytes, wave: int) -> bool:
        if self._names.get(key, -1) > wave:
            return True
        if not self._record_names:
            return False
        address = Address.parse(key_to_text(key)) if b"@" in key else None
        if address is not None and self._record_names.get(key_to_bytes(address.path), -1) > wave:
            return True
        # The key of a sample in an archive is the archive's name, a slash and the sample's name.
        ends = (position for position, byte in enumerate(key) if byte == _SLASH)
        return any(self._record_names.get(key[:end], -1) > wave for end in ends)


def _newest(waves: dict[str, int]) -> int:
    return max(waves.values(), default=-1)


def _paths_of(failure: Failure) -> tuple[str, ...]:
    """Returns the possible inputs of a failure: its source, and the file of the source's address, if any."""
    address = Address.parse(failure.source)
    return (failure.source,) if address is None else (failure.source, address.path)


def _forms(key: bytes) -> set[bytes]:
    """Returns a key, and the escaped form that Parquet has for bytes outside UTF-8."""
    return {key} if key.isascii() else {key, key.decode("utf-8", "backslashreplace").encode()}
