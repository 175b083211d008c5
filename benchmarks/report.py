"""The results of `benchmarks.run`: medians, a table, a chart, and the machine."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, RUN_INFERENCE
from benchmarks.measure import Round
from benchmarks.vectors import Difference
from pipeline.core.cores import usable_cores


def summarize(
    found: Mapping[str, Sequence[Round]], differences: Mapping[str, Difference] | None = None
) -> list[dict[str, Any]]:
    """Returns one row of medians for each contender, over the rounds with a valid speed; None if there are none.

    Args:
      found: the rounds of each contender, by label.
      differences: of its vectors from the pipeline's.
    """
    contenders = {contender.label: contender for contender in CONTENDERS}
    rows = []
    for label, rounds in found.items():
        contender = contenders[label]
        difference = (differences or {}).get(label)
        speeds = [item.images_per_second for item in rounds if not math.isnan(item.images_per_second)]
        rows.append(
            {
                "label": label,
                "images_per_second": _median(speeds),
                "slowest": min(speeds, default=None),
                "fastest": max(speeds, default=None),
                "startup_s": _median([item.startup_s for item in rounds]),
                "cpu_s_per_1000": _median([item.cpu_s_per_1000 for item in rounds]),
                "peak_mib": max(item.large.peak_mib for item in rounds),
                "of_limit": _ratio(rounds, found.get(contender.reference)),
                "of_run_inference": _ratio(rounds, found.get(RUN_INFERENCE)),
                "difference": difference and dataclasses.asdict(difference),
                "form": contender.form,
                "version": f"{contender.package} {contender.version()}",
            }
        )
    return rows


def _ratio(rounds: Sequence[Round], others: Sequence[Round] | None) -> float | None:
    if not others:
        return None
    pairs = zip(rounds, others, strict=True)
    return _median([item.images_per_second / other.images_per_second for item, other in pairs])


def _median(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else None


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| | images/s (min-max) | of the limit | x RunInference | start-up s | CPU s / 1000 | peak MiB "
        "| difference (max) | library |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        speed, slowest, fastest = (_show(row[key], 0) for key in ("images_per_second", "slowest", "fastest"))
        limit, other, cpu = (_show(row[key], 2) for key in ("of_limit", "of_run_inference", "cpu_s_per_1000"))
        difference = "{median:.1e} ({largest:.1e})".format(**row["difference"]) if row["difference"] else ""
        lines.append(
            f"| {row['label']} | {speed} ({slowest}-{fastest}) | {limit} | {other} | {_show(row['startup_s'], 1)} "
            f"| {cpu} | {row['peak_mib']:.0f} | {difference} | {row['version']} |"
        )
    return "\n".join(lines)


def _show(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws sustained speeds as bars, from the slowest to the fastest round."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["images_per_second"] is not None]
    speeds = [row["images_per_second"] for row in rows]
    spread = [
        [row["images_per_second"] - row["slowest"] for row in rows],
        [row["fastest"] - row["images_per_second"] for row in rows],
    ]
    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(rows) + 1.2))
    colours = ["tab:blue" if row["label"].startswith("pipeline") else "tab:gray" for row in rows]
    axes.barh([row["label"] for row in rows], speeds, xerr=spread, color=colours, ecolor="black", capsize=2)
    axes.invert_yaxis()
    axes.set_xlabel("images/s, sustained")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def describe_machine() -> dict[str, Any]:
    """Returns the hardware and software of the measurement."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    return {"cpu": cpu, "cores": usable_cores(), "load": os.getloadavg()[0], "python": platform.python_version()}
