"""The learning curve of a fine-tuning run as a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.finetune.state import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_INCHES, _HEIGHT_INCHES, _DOTS_PER_INCH = 10.0, 4.3, 100
_TRAINING, _VALIDATION, _EXPORTED, _SHADE = "#8a8f98", "#1f6feb", "#24292f", "#eef1f5"
_MOST_MARKERS = 60


def draw(history: Sequence[Epoch], best: int) -> bytes:
    """Returns `plot` as a PNG of 1000 x 430 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    FigureCanvasAgg(plot(history, best)).figure.savefig(file, format="png")
    return file.getvalue()


def plot(history: Sequence[Epoch], best: int) -> Figure:
    """Returns a figure of the accuracy in % and the loss of each epoch, in training and in validation.

    Args:
      history: the epochs, in order; one at least.
      best: index of the one that was exported.
    """
    # Imported here, as it takes longer than all else that a run without this picture imports. Figure alone, without
    # pyplot, has no global state and needs no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), dpi=_DOTS_PER_INCH, layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    _curves(
        accuracy,
        "Accuracy, %",
        [100 * epoch.train_accuracy for epoch in history],
        [100 * epoch.validation_accuracy for epoch in history],
    )
    _curves(loss, "Loss, nats", [epoch.train_loss for epoch in history], [epoch.validation_loss for epoch in history])
    accuracy.set_ylim(0, 104)  # so that a line at 100 % is seen whole
    largest = max(max(epoch.train_loss, epoch.validation_loss) for epoch in history)
    loss.set_ylim(0, 1.04 * largest or 1)
    head_epochs = sum(epoch.phase == "head" for epoch in history)
    for axes in (accuracy, loss):
        axes.axvline(history[best].epoch, color=_EXPORTED, linestyle="--", linewidth=1, label="exported")
        if head_epochs:
            axes.axvspan(0.5, head_epochs + 0.5, color=_SHADE, zorder=0, label="classifier only")
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _curves(axes: Axes, title: str, training: Sequence[float], validation: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = range(1, len(training) + 1)
    marker = "." if len(epochs) <= _MOST_MARKERS else ""
    axes.plot(epochs, training, color=_TRAINING, marker=marker, label="training")
    axes.plot(epochs, validation, color=_VALIDATION, marker=marker, label="validation")
    axes.set_title(title, loc="left")
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color=_SHADE)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
