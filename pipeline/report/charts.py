"""Bar charts as numbers, which the templates draw as SVG with a table beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 32


@dataclass(frozen=True)
class Bar:
    """A bar.

    Attributes:
      label: of the bar, for people.
      value: text of its value.
      height: 0 to 1, relative to the highest bar.
    """

    label: str
    value: str
    height: float


@dataclass(frozen=True)
class Chart:
    """A bar chart.

    Attributes:
      title: of the chart.
      summary: what it shows, in one sentence.
      label_name: what the labels of the bars are.
      value_name: what their values are.
      bars: from left to right.
      ends: labels of the left and of the right end of the axis.
    """

    title: str
    summary: str
    label_name: str
    value_name: str
    bars: tuple[Bar, ...]
    ends: tuple[str, str]


def histogram(values: NDArray[np.float32], title: str, label_name: str) -> Chart | None:
    """Returns the histogram of some values, with bins of equal width; None if there are none."""
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    # Values that differ by rounding only share one bin.
    bins = _BINS if high - low > 1e-5 * max(abs(high), abs(low)) else 1
    width = (high - low) / bins
    indices = np.minimum((values.astype(np.float64) - low) / width, bins - 1).astype(int) if bins > 1 else values * 0
    counts = np.bincount(indices.astype(int), minlength=bins)
    edges = [low + width * index for index in range(bins + 1)]
    bars = [
        (f"{start:.4g} to {stop:.4g}", float(count))
        for start, stop, count in zip(edges, edges[1:], counts, strict=False)
    ]
    median = float(np.median(values))
    summary = f"Median {median:.4g}; from {low:.4g} to {high:.4g}."
    return _chart(title, summary, label_name, "Vectors", bars, (f"{low:.4g}", f"{high:.4g}"))


def bar_chart(title: str, summary: str, names: tuple[str, str], bars: Sequence[tuple[str, float]]) -> Chart:
    """Returns a chart with one bar for each label and value.

    Args:
      title: of the chart.
      summary: what it shows.
      names: what the labels and the values are.
      bars: the labels and values; at least one.
    """
    return _chart(title, summary, *names, bars, (bars[0][0], bars[-1][0]))


def _chart(
    title: str, summary: str, label_name: str, value_name: str, bars: Sequence[tuple[str, float]], ends: tuple[str, str]
) -> Chart:
    highest = max((value for _, value in bars), default=0.0) or 1.0
    made = tuple(
        Bar(label, f"{value:,.4g}" if value < 1000 else f"{value:,.0f}", value / highest) for label, value in bars
    )
    return Chart(title, summary, label_name, value_name, made, ends)
