"""Finding the inputs of a run: expands patterns to files, each with its kind and its name in keys."""

from __future__ import annotations

import functools
import logging
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.errors import InputError
from pipeline.core.keys import from_column, to_column
from pipeline.core.settings import InputConfig
from pipeline.inputs.base import InputFile, InputKind
from pipeline.inputs.input_table import INPUT_SCHEMA, InputTable, to_files, write_files
from pipeline.inputs.sniff import describe_other
from pipeline.inputs.tasks import find_kind, find_kind_of, first_bytes, registered_kinds
from pipeline.storage import filesystem, listing
from pipeline.storage.pages import FilePage
from pipeline.storage.tables import Scratch, TableWriter

_log = logging.getLogger(__name__)

IsOutput = Callable[[str], bool]
"""Returns whether a run wrote the file of a path to an output data set; such files are no inputs."""

_EXPECTED = "expected image files, TFRecords, tar or Parquet files"
_ADVICE = "check the path"
_HIDDEN = "hidden, by names that begin with a dot"
_CHECKPOINT = "of TensorFlow checkpoints"
_CHECKPOINT_NAME = r"\.data-\d{5}-of-\d{5}$"


@dataclass(frozen=True)
class OtherDataset:
    """An output data set below an input.

    Attributes:
      root: its directory.
      is_own: returns whether a run wrote a file of it, by the file's path.
    """

    root: str
    is_own: IsOutput


def find_inputs(
    config: InputConfig,
    outputs_in: Callable[[str], IsOutput | None] = lambda folder: None,
    kinds: Sequence[InputKind] = (),
    *,
    other_dataset_in: Callable[[str], OtherDataset | None] = lambda folder: None,
) -> InputTable:
    """Returns the input files of a run, each once.

    Args:
      config: the patterns and the input format.
      outputs_in: returns, for a folder, the test for its files that are outputs; None if it holds none.
      kinds: additional input kinds, which take precedence over the registered ones.
      other_dataset_in: returns the output data set to which a folder belongs, if any.

    Raises:
      InputError: a pattern matched nothing, the kind of a file is unknown, or two files have the same name.
    """
    patterns: dict[str, str] = {}
    for pattern in config.input:
        patterns.setdefault(filesystem.absolute(pattern), pattern)
    matches = [_match(pattern) for pattern in patterns]
    base = _common_parent(match.base for match in matches)
    scratch = Scratch()
    found = scratch.path("found.parquet")
    search = _Search(config.input_format, kinds, outputs_in, other_dataset_in)
    with TableWriter(found, INPUT_SCHEMA) as writer:
        for (path, given), match in zip(patterns.items(), matches, strict=True):
            before = search.files
            search.add(_listed(path, match.pages), base, match, writer)
            if search.files == before and (filesystem.is_remote(path) or not os.path.isdir(path)):
                raise InputError(f"no input matched {given}; {_EXPECTED}; {_ADVICE}")
    search.warn()
    if not writer.rows:
        left_out = search.describe_left_out()
        advice = f"{left_out}; name their --input_format" if left_out else _ADVICE
        raise InputError(f"no input matched {' '.join(config.input)}; {_EXPECTED}; {advice}")
    table = InputTable(scratch, found, writer.rows)
    # One pattern, or different single files, find each file once.
    is_each_once = not search.has_lists and (len(matches) == 1 or all(match.is_file for match in matches))
    return table if is_each_once else _each_once(scratch, table)


class _Search:
    """The files found so far, and those that were left out."""

    def __init__(
        self,
        input_format: str,
        kinds: Sequence[InputKind],
        outputs_in: Callable[[str], IsOutput | None],
        other_dataset_in: Callable[[str], OtherDataset | None],
    ) -> None:
        self._kinds = (*kinds, *registered_kinds())
        self._wanted = None if input_format == "auto" else find_kind(input_format, kinds)
        self._outputs_in = outputs_in
        self._other_dataset_in = other_dataset_in
        self.files = 0
        self.has_lists = False
        self._left_out: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()

    def add(self, pages: Iterable[FilePage], base: str | None, match: listing.Match, writer: TableWriter) -> None:
        """Adds the inputs among listed files to a table."""
        for page in pages:
            rows = self._without_outputs(page)
            self.files += rows.num_rows
            is_hidden = False
            if not match.is_file:
                is_hidden = _is_hidden(_relative(page.folder, match.base))
                hidden = pc.match_substring_regex(rows.column("path"), r"/\.[^/]*$")
                self._left_out[_HIDDEN] += rows.num_rows if is_hidden else pc.sum(hidden).as_py() or 0
                rows = self._without_leftovers(rows.filter(pc.invert(hidden)), page.folder)
            if not is_hidden and rows.num_rows:
                self._add_kinds(rows, base, is_file=match.is_file, writer=writer)

    def _without_outputs(self, page: FilePage) -> pa.RecordBatch:
        is_output = self._outputs_in(page.folder)
        keep = None if is_output is None else [not is_output(path) for path in page.paths]
        columns = [
            pa.array(map(to_column, page.paths), pa.string()),
            pa.array(page.sizes, pa.int64()),
            pa.array(page.mtimes, pa.float64()),
        ]
        rows = pa.record_batch(columns, ["path", "size_bytes", "mtime_s"])
        return rows if keep is None else rows.filter(pa.array(keep, pa.bool_()))

    def _without_leftovers(self, rows: pa.RecordBatch, folder: str) -> pa.RecordBatch:
        """Returns the files of a folder that belong neither to an output data set nor to a checkpoint."""
        dataset = self._other_dataset_in(folder)
        is_shard = pc.match_substring_regex(rows.column("path"), _CHECKPOINT_NAME)
        if dataset is None and not pc.any(is_shard).as_py():
            return rows
        reasons = []
        for path, is_like_checkpoint in zip(rows.column("path").to_pylist(), is_shard.to_pylist(), strict=True):
            path = from_column(path)
            if dataset is not None and dataset.is_own(path):
                reasons.append(f"of the embedding data set {dataset.root}")
            elif is_like_checkpoint and self._wanted is None and _is_checkpoint(path.rpartition(".data-")[0]):
                reasons.append(_CHECKPOINT)
            else:
                reasons.append("")
        self._left_out.update(filter(None, reasons))
        return rows.filter(pa.array([not reason for reason in reasons], pa.bool_()))

    def _add_kinds(self, rows: pa.RecordBatch, base: str | None, *, is_file: bool, writer: TableWriter) -> None:
        """Adds files to the table by kind: the first kind that recognises a file's name reads it."""
        for kind in self._kinds if self._wanted is None else (self._wanted,):
            if self._wanted is None:
                if not (kind.in_directories or is_file):
                    continue
                recognized = pc.match_substring_regex(rows.column("path"), kind.file_names, ignore_case=True)
                mine, rows = rows.filter(recognized), rows.filter(pc.invert(recognized))
            else:
                mine, rows = rows, rows.slice(0, 0)
            self._add(mine, base, kind, writer)
        if rows.num_rows and is_file:
            path = from_column(rows.column("path")[0].as_py())
            self._add(rows, base, self._kind_of_content(path), writer)
        else:
            for path in rows.column("path").to_pylist():
                self._unknown[os.path.splitext(path)[1] or "no extension"] += 1

    def _add(self, rows: pa.RecordBatch, base: str | None, kind: InputKind, writer: TableWriter) -> None:
        if not rows.num_rows:
            return
        if kind.is_list:
            self.has_lists = True
            for file in _to_input_files(rows, base, kind):
                write_files(writer, kind.listed(file.path))
        else:
            writer.write(_name(rows, base, kind))

    def _kind_of_content(self, path: str) -> InputKind:
        """Returns the kind that the first bytes of a file show.

        Raises:
          InputError: they show none, or cannot be read.
        """
        try:
            start = first_bytes(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        kind = find_kind_of(start, self._kinds)
        if kind is not None:
            return kind
        other = describe_other(start)
        *others, last = (kind.name for kind in self._kinds)
        raise InputError(
            f"neither the name nor the first bytes of {path} show its kind"
            f"{f' (it is {other})' if other else ''}; use --input_format={', '.join(others)} or {last}"
        )

    def describe_left_out(self) -> str:
        """Returns which files were left out and why, in one line; empty if there are none."""
        found = [f"{count} {reason}" for reason, count in self._left_out.most_common() if count]
        if self._unknown:
            listed = ", ".join(f"{count} of {extension}" for extension, count in self._unknown.most_common(5))
            found.append(f"{self._unknown.total()} of no known kind by their names ({listed})")
        return f"left out {self._left_out.total() + self._unknown.total()} files: {'; '.join(found)}" if found else ""

    def warn(self) -> None:
        """Warns of files that were left out."""
        if text := self.describe_left_out():
            _log.warning("%s", text)


@functools.lru_cache(maxsize=1024)
def _is_checkpoint(prefix: str) -> bool:
    """Returns whether files that begin with a path are those of a TensorFlow checkpoint, also that of a SavedModel."""
    try:
        return filesystem.exists(f"{prefix}.index")
    except OSError:
        return False


def _name(rows: pa.RecordBatch, base: str | None, kind: InputKind) -> pa.RecordBatch:
    """Returns the rows of files, with their names in keys: their paths relative to `base`."""
    paths = rows.column("path")
    prefix = "" if base is None else to_column(base).rstrip("/") + "/"
    names = pc.utf8_slice_codeunits(paths, len(prefix))
    is_relative = pc.and_(pc.starts_with(paths, prefix), pc.invert(pc.starts_with(names, "/")))
    if not pc.all(is_relative).as_py():  # another file system, or a name with an empty part
        names = pa.array([to_column(_relative(path, base)) for path in paths.to_pylist()], pa.string())
    kinds = pa.array([kind.name], pa.string()).take(pa.array([0] * rows.num_rows, pa.int8()))
    return pa.record_batch(
        [paths, names, kinds, rows.column("size_bytes"), rows.column("mtime_s")], schema=INPUT_SCHEMA
    )


def _to_input_files(rows: pa.RecordBatch, base: str | None, kind: InputKind) -> list[InputFile]:
    return to_files(_name(rows, base, kind))


def _each_once(scratch: Scratch, found: InputTable) -> InputTable:
    """Returns the table with each file once; the first pattern or line that names a file decides its name.

    Raises:
      InputError: two files have the same name, and so the same keys; lines of list files can cause that.
    """
    path = scratch.path("inputs.parquet")
    with scratch.database() as database:
        database.execute(f"CREATE VIEW found AS SELECT * FROM read_parquet('{found.path}', file_row_number = true)")
        columns = ", ".join(f"arg_min({name}, file_row_number) AS {name}" for name in INPUT_SCHEMA.names[1:])
        copied = database.execute(f"COPY (SELECT path, {columns} FROM found GROUP BY path) TO '{path}'").fetchall()
        database.execute(f"CREATE VIEW files AS SELECT * FROM read_parquet('{path}')")
        repeated = database.execute(
            "SELECT count(*) FROM found JOIN files USING (path) WHERE found.name <> files.name"
        ).fetchall()[0][0]
        if repeated:
            _log.warning(
                "%d list lines name a file that an earlier line names differently; the earlier line gives the key",
                repeated,
            )
        same = database.execute(
            "SELECT min(path), max(path), name FROM files GROUP BY name HAVING count(*) > 1 ORDER BY name LIMIT 1"
        ).fetchall()
        for row in same:
            first, second, name = map(from_column, row)
            raise InputError(
                f"{first} and {second} would have the same key, {name}; write the list's line in another way, such as "
                "with the absolute path"
            )
    return InputTable(scratch, path, copied[0][0])


def _match(pattern: str) -> listing.Match:
    try:
        return listing.match(pattern)
    except OSError as error:
        raise InputError(f"--input={pattern} cannot be listed: {error}") from error


def _listed(path: str, pages: Iterable[FilePage]) -> Iterator[FilePage]:
    try:
        yield from pages
    except OSError as error:
        raise InputError(f"--input={path} cannot be listed: {error}") from error


def _is_hidden(name: str) -> bool:
    return name not in (".", "") and any(part.startswith(".") for part in name.split("/"))


def _common_parent(bases: Iterable[str]) -> str | None:
    """Returns the deepest common parent of some directories, or None if there is none."""
    unique = sorted(set(bases))
    if len(unique) == 1:
        return unique[0]
    if any(filesystem.is_remote(base) for base in unique):
        # `scheme://bucket`; the bucket of `hdfs:///path` is empty.
        stores = {"/".join(base.split("/")[:3]) if filesystem.is_remote(base) else "" for base in unique}
        if len(stores) > 1:
            return None
        store = stores.pop()
        return store + posixpath.commonpath([base[len(store) :] or "/" for base in unique]).rstrip("/")
    try:
        return os.path.commonpath([os.path.abspath(base) for base in unique])
    except ValueError:  # different drives
        return None


def _relative(path: str, base: str | None) -> str:
    if base is None:
        return path
    if filesystem.is_remote(path):
        return path[len(base) :].lstrip("/") if path.startswith(base) else path
    return os.path.relpath(path, base or os.curdir).replace(os.sep, "/")
