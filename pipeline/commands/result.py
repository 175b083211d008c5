"""The end of a run, as the command prints it: what was done, what failed, where it lies, and what to try next."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.core.console import print_line
from pipeline.core.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.job.summary import Summary


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
      label: names it.
      lines: its text.
      style: of the text on a terminal, in the words of rich.
    """

    label: str
    lines: tuple[str, ...]
    style: str = ""


@dataclass(frozen=True)
class Result:
    """The end of a run.

    Attributes:
      headline: counts and speed.
      rows: the table below the headline.
    """

    headline: str
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        width = max(len(row.label) for row in self.rows)
        lines = [self.headline]
        for row in self.rows:
            labels = (row.label, *[""] * (len(row.lines) - 1))
            lines += [f"{label:{width}}  {line}" for label, line in zip(labels, row.lines, strict=True)]
        return "\n".join(lines)

    def print(self) -> None:
        """Prints the result: with colours on a terminal, else as plain aligned text."""
        if not sys.stdout.isatty():
            print_line(str(self))
            return
        # Imported here: only a terminal needs it.
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for row in self.rows:
            table.add_row(row.label, Text("\n".join(row.lines), style=row.style))
        Console(highlight=False, emoji=False).print(Text(self.headline, style="bold"), table)


def describe_result(summary: Summary, output: str, examples: Mapping[str, str]) -> Result:
    """Returns the end of a run.

    Args:
      summary: of the run.
      output: directory of the data set, as the user named it.
      examples: a key for each reason of failures.
    """
    rows = []
    if summary.failures_by_reason:
        counts = [str(count) for count in summary.failures_by_reason.values()]
        reasons = list(summary.failures_by_reason)
        keys = [f"such as {examples[reason]}" if reason in examples else "" for reason in reasons]
        rows.append(Row("failed", _align(counts, reasons, keys), "red"))
    if summary.damaged_but_embedded:
        text = f"{summary.damaged_but_embedded} embedded although damaged: see {output}/damaged"
        rows.append(Row("damaged", (text,), "yellow"))
    command, path = f"{_python()} -m", shlex.quote(output)
    rows += [
        Row("module", (f"{summary.module} ({summary.module_sha256[:12]}), engine {summary.engine}",)),
        Row("data set", (output,), "bold"),
        Row("view", (f"{command} pipeline.report {path}",), "cyan"),
        Row("verify", (f"{command} pipeline.verify {path}",), "cyan"),
    ]
    if summary.failed:
        rows.append(Row("retry", ("the same command with --retry_failed",), "cyan"))
    return Result(_headline(summary), tuple(rows))


def _headline(summary: Summary) -> str:
    if not summary.records and summary.skipped:
        return f"nothing new: all {summary.skipped} records were done by earlier runs"
    text = (
        f"{summary.embedded} of {summary.records} records embedded in {summary.seconds:.1f} s "
        f"({summary.images_per_second:.0f} images/s), {summary.dimension} values each"
    )
    return f"{text}; {summary.skipped} were done by earlier runs" if summary.skipped else text


def _align(counts: list[str], reasons: list[str], keys: list[str]) -> tuple[str, ...]:
    count_width, reason_width = max(map(len, counts)), max(map(len, reasons))
    lines = zip(counts, reasons, keys, strict=True)
    return tuple(f"{count:>{count_width}} {reason:{reason_width}}  {key}".rstrip() for count, reason, key in lines)


def _python() -> str:
    """Returns how a shell names the interpreter of this process: `python` if that is the one."""
    if shutil.which("python") == sys.executable:
        return "python"
    here = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if here.startswith(os.pardir) else here)


def example_keys(output: str, summary: Summary) -> dict[str, str]:
    """Returns a key for each reason of the failures of a run; without those that cannot be read back.

    Keys are strangers' text: characters that a terminal might obey are escaped.

    Args:
      output: directory of the data set.
      summary: of the run, which has just ended.
    """
    found: dict[str, str] = {}
    if summary.failed:
        with contextlib.suppress(PipelineError, OSError):  # the run itself has succeeded
            _find_examples(output, summary.waves, summary.failures_by_reason, found)
    return found


def _find_examples(output: str, waves: int, reasons: Collection[str], found: dict[str, str]) -> None:
    from pipeline.core.keys import key_to_text
    from pipeline.dataset.metadata import live, read_manifests
    from pipeline.dataset.reader import read_failures_file
    from pipeline.storage import filesystem

    output = filesystem.normalize(output)
    for manifest in live(read_manifests(output))[-waves:]:
        for entry in manifest.files("failures"):
            for failure in read_failures_file(filesystem.join(output, entry.path)):
                found.setdefault(failure.reason, _printable(key_to_text(failure.key)))
                if len(found) == len(reasons):
                    return


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
