import io

import numpy as np
import pytest
from PIL import Image

from pipeline.finetune.curve import draw
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


@pytest.mark.parametrize("count", [1, 2, 9, 100, 1000])
@pytest.mark.parametrize("loss", [0.0, 1e-4, 700.0])
def test_any_history_can_be_drawn(count, loss):
    assert picture(history(count, loss=loss), count - 1).shape == (430, 1000, 3)


def test_same_history_gives_the_same_picture():
    assert draw(history(5), 2) == draw(history(5), 2) != draw(history(5), 3)


def blue(image):
    """Rows and columns of the line of the validation, left of the legend and below the titles."""
    return np.argwhere((abs(image - (0x1F, 0x6F, 0xEB)).sum(axis=2) < 60)[:380])


def test_validation_accuracy_of_a_half_is_halfway_up():
    rows = blue(picture(history(20), 3)[:, :500])[:, 0]
    assert abs(rows - (48 + 346) / 2).max() <= 4


def test_phase_of_the_classifier_is_shaded():
    column = picture(history(4, head_epochs=2), 3)[60, 62:478]
    shaded = np.flatnonzero((column == (0xF3, 0xF5, 0xF8)).all(axis=1))
    assert shaded.max() == pytest.approx((478 - 62) / 2, abs=3)
    column = picture(history(4, head_epochs=0), 3)[60, 62:478]
    assert not (column == (0xF3, 0xF5, 0xF8)).all(axis=1).any()
