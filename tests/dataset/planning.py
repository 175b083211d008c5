"""Plans as lists, and data sets that only cover inputs, for the tests of planning."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.failures import Failure
from pipeline.core.keys import from_column
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.plan import MAX_WAVE_FILES, make_plan
from pipeline.dataset.plan_files import to_tasks
from pipeline.dataset.tables import InputEntry
from pipeline.inputs.base import InputFile, ReadTask
from pipeline.inputs.input_table import InputTable, to_files
from tests.datasets import add_wave, make_batch


@dataclass(frozen=True)
class PlannedWave:
    """A wave in memory: its files, the tasks that read these, and the sources that it tries again."""

    files: list[InputFile]
    tasks: list[ReadTask]
    retried: list[str]

    @property
    def paths(self) -> list[str]:
        return [file.path for file in self.files]

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.files]


@dataclass(frozen=True)
class Planned:
    """A plan in memory."""

    waves: list[PlannedWave]
    skipped: int


class Covered:
    """A data set whose waves cover inputs, and hold nothing else."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def add(self, wave: str, *inputs: InputEntry, **options: object) -> Covered:
        """Commits a wave."""
        add_wave(self.output, wave, make_batch({}), inputs=inputs, **options)
        return self

    def plan(
        self,
        files: Iterable[InputFile],
        *,
        wave_bytes: int | None = None,
        failures: Iterable[Failure] = (),
        wave_files: int = MAX_WAVE_FILES,
    ) -> Planned:
        """Returns the plan for some files."""
        output = str(self.output)
        found = make_plan(
            InputTable.of(files),
            output,
            read_manifests(output),
            wave_bytes=wave_bytes,
            failures=failures,
            wave_files=wave_files,
        )
        waves = []
        for wave in found.waves:
            batches = list(wave.files())
            waves.append(
                PlannedWave(
                    [file for rows in batches for file in to_files(rows)],
                    [task for rows in batches for task in to_tasks(rows)],
                    [from_column(source) for rows in wave.sources() for source in rows.column("source").to_pylist()],
                )
            )
        return Planned(waves, found.skipped)


def plan_of(files: Sequence[InputFile], **options: object) -> Planned:
    """Returns the plan for the files of a new data set."""
    with tempfile.TemporaryDirectory() as directory:
        return Covered(Path(directory, "out")).plan(files, **options)


def image(name: str, *, size_bytes: int = 10, mtime_s: float = 1.5) -> InputFile:
    """Returns an image of directory `/in`."""
    return InputFile(f"/in/{name}", name, "images", size_bytes, mtime_s)


def records(name: str, *, size_bytes: int = 1000, mtime_s: float = 1.5) -> InputFile:
    """Returns a TFRecord file of directory `/in`."""
    return InputFile(f"/in/{name}", name, "tfrecord", size_bytes, mtime_s)


def failure(key: str, source: str | None = None, reason: str = "truncated") -> Failure:
    """Returns a failure, by default of the file `/in/<key>`."""
    return Failure(key.encode(), source or f"/in/{key}", "read", reason, "made up")
