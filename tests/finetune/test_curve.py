import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pipeline.finetune.curve import draw, plot
from pipeline.finetune.state import Epoch


def history(count, head_epochs=1, loss=2.0):
    return [
        Epoch(n + 1, "head" if n < head_epochs else "network", 0.001, loss / (n + 1), n / count, loss, 0.5, 1.0)
        for n in range(count)
    ]


def picture(*arguments):
    with Image.open(io.BytesIO(draw(*arguments))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(("count", "loss"), [(1, 0.0), (2, 1e-4), (9, 700.0), (1000, 2.0)])
def test_any_history_can_be_drawn(count, loss):
    image = picture(history(count, loss=loss), count - 1)
    assert image.shape == (430, 1000, 3)
    assert (abs(image - (0x1F, 0x6F, 0xEB)).sum(axis=2) < 60).sum() > 20, "nothing is blue"


def test_same_history_gives_the_same_picture():
    assert draw(history(5), 2) == draw(history(5), 2) != draw(history(5), 3)


def test_curves_are_those_of_the_epochs():
    accuracy, loss = plot(history(4), 3).axes
    lines = {axes: {line.get_label(): list(line.get_ydata()) for line in axes.lines} for axes in (accuracy, loss)}
    assert lines[accuracy]["training"] == [0, 25, 50, 75]
    assert lines[accuracy]["validation"] == [50, 50, 50, 50]
    assert lines[loss]["training"] == [2, 1, 2 / 3, 0.5]
    assert lines[loss]["validation"] == [2, 2, 2, 2]
    assert accuracy.get_ylim() == (0, 104)
    assert loss.get_ylim()[0] == 0
    assert loss.get_ylim()[1] > 2


@pytest.mark.parametrize("count", [1, 2, 5, 40, 200])
def test_epochs_are_whole_numbers(count):
    figure = plot(history(count), 0)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == int(tick) for tick in ticks)


def test_exported_epoch_and_phase_of_the_classifier_are_marked():
    for axes in plot(history(4, head_epochs=2), 2).axes:
        (exported,) = (line for line in axes.lines if line.get_label() == "exported")
        assert list(exported.get_xdata()) == [3, 3]
        (shaded,) = axes.patches
        assert (shaded.get_x(), shaded.get_width()) == (0.5, 2)
    figure = plot(history(4, head_epochs=0), 3)
    assert [list(axes.patches) for axes in figure.axes] == [[], []]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training", "validation", "exported"]


def test_matplotlib_is_only_imported_to_draw_and_keeps_no_figure():
    code = (
        "import sys\n"
        "from pipeline.finetune.curve import draw\n"
        "from pipeline.finetune.state import Epoch\n"
        "assert 'matplotlib' not in sys.modules\n"
        "draw([Epoch(1, 'head', 0.1, 1.0, 0.5, 1.0, 0.5, 1.0)], 0)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
