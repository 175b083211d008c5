"""The learning curve of a fine-tuning run, drawn as a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from pipeline.finetune.state import Epoch

# Drawn larger and then scaled down, which smooths the edges.
_SCALE = 3
_WIDTH, _HEIGHT = 1000, 430
_TRAIN, _VALIDATION, _INK, _GRID, _SHADE = "#8a8f98", "#1f6feb", "#24292f", "#dfe3e8", "#f3f5f8"
_TICKS = 5


@dataclass(frozen=True, slots=True)
class _Curve:
    label: str
    colour: str
    values: Sequence[float]


def draw(history: Sequence[Epoch], best: int) -> bytes:
    """Returns a PNG with the accuracy and the loss of each epoch, in training and in validation.

    Args:
      history: the epochs, in order; one at least.
      best: index of the one that was exported.
    """
    image = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), "white")
    canvas = ImageDraw.Draw(image)
    accuracy = [
        _Curve("training", _TRAIN, [100 * epoch.train_accuracy for epoch in history]),
        _Curve("validation", _VALIDATION, [100 * epoch.validation_accuracy for epoch in history]),
    ]
    loss = [
        _Curve("training", _TRAIN, [epoch.train_loss for epoch in history]),
        _Curve("validation", _VALIDATION, [epoch.validation_loss for epoch in history]),
    ]
    largest = max(value for curve in loss for value in curve.values)
    head_epochs = sum(epoch.phase == "head" for epoch in history)
    for left, title, curves, top in ((0, "Accuracy, %", accuracy, 100.0), (500, "Loss, nats", loss, _ceiling(largest))):
        panel = _Panel(canvas, left, len(history), top)
        panel.draw(title, curves, head_epochs, best)
    panel.legend(330, 412, curves, head_epochs)
    file = io.BytesIO()
    image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS).save(file, "PNG")
    return file.getvalue()


def _ceiling(value: float) -> float:
    """Returns the next round number: 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)


class _Panel:
    """One pair of axes; in pixels of the finished picture, from its left upper corner."""

    def __init__(self, canvas: ImageDraw.ImageDraw, left: int, epochs: int, top_value: float) -> None:
        self._canvas = canvas
        self._left, self._right = left + 62, left + 478
        self._top, self._bottom = 48, 346
        self._epochs = epochs
        self._top_value = top_value
        self._font = ImageFont.load_default(12 * _SCALE)
        self._title_font = ImageFont.load_default(15 * _SCALE)

    def draw(self, title: str, curves: Sequence[_Curve], head_epochs: int, best: int) -> None:
        """Draws everything, from back to front."""
        if head_epochs:
            edge = self._x(head_epochs - 0.5) if head_epochs < self._epochs else self._right
            self._box(self._left, self._top, edge, self._bottom, _SHADE)
        self._text(self._left, 20, title, "lm", self._title_font)
        for tick in range(_TICKS + 1):
            value = self._top_value * tick / _TICKS
            y = self._y(value)
            self._line([(self._left, y), (self._right, y)], _GRID, 1)
            self._text(self._left - 8, y, f"{value:.4g}", "rm")
        step = max(1, round(_ceiling(self._epochs / 8)))
        for epoch in sorted({1, *range(step, self._epochs + 1, step)}):
            self._text(self._x(epoch - 1), self._bottom + 14, str(epoch), "mm")
        self._text((self._left + self._right) / 2, self._bottom + 32, "epoch", "mm")
        x = self._x(best)
        self._line([(x, self._top), (x, self._bottom)], _INK, 1, dashed=True)
        for curve in curves:
            points = [(self._x(index), self._y(value)) for index, value in enumerate(curve.values)]
            self._line(points, curve.colour, 2)
            for point in points if len(points) <= 60 else points[best : best + 1]:
                self._dot(point, curve.colour, 2.5)

    def legend(self, x: float, y: float, curves: Sequence[_Curve], head_epochs: int) -> None:
        """Says what the lines are, from a place on to the right."""
        for curve in curves:
            self._line([(x, y), (x + 18, y)], curve.colour, 2)
            x = self._text(x + 24, y, curve.label, "lm") + 14
        self._line([(x, y), (x + 18, y)], _INK, 1, dashed=True)
        x = self._text(x + 24, y, "exported", "lm") + 14
        if head_epochs:
            self._box(x, y - 6, x + 14, y + 6, _SHADE)
            self._text(x + 20, y, "classifier only", "lm")

    def _x(self, index: float) -> float:
        return self._left + (self._right - self._left) * (index + 0.5) / self._epochs

    def _y(self, value: float) -> float:
        return self._bottom - (self._bottom - self._top) * min(value, self._top_value) / self._top_value

    def _line(self, points: Sequence[tuple[float, float]], colour: str, width: int, *, dashed: bool = False) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        if not dashed:
            self._canvas.line(scaled, colour, width * _SCALE, joint="curve")
            return
        (x0, y0), (x1, y1) = scaled
        pieces = max(1, round(math.hypot(x1 - x0, y1 - y0) / (4 * _SCALE)))
        for piece in range(0, pieces, 2):
            ends = [(x0 + (x1 - x0) * at / pieces, y0 + (y1 - y0) * at / pieces) for at in (piece, piece + 1)]
            self._canvas.line(ends, colour, width * _SCALE)

    def _dot(self, point: tuple[float, float], colour: str, radius: float) -> None:
        x, y = point
        box = (x - radius, y - radius, x + radius, y + radius)
        self._canvas.ellipse([value * _SCALE for value in box], colour)

    def _box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._canvas.rectangle([value * _SCALE for value in (left, top, right, bottom)], colour)

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str,
        font: ImageFont.FreeTypeFont | ImageFont.ImageFont | None = None,
    ) -> float:
        """Writes text and returns where it ends."""
        font = font or self._font
        self._canvas.text((x * _SCALE, y * _SCALE), text, _INK, font, anchor=anchor)
        return x + self._canvas.textlength(text, font) / _SCALE
