import numpy as np
import pytest

from benchmarks import models
from pipeline.testing import jpeg_bytes

CLIP = "ONNX ViT, CLIP configuration"


@pytest.mark.parametrize(
    ("largest", "levels", "is_within"),
    [
        (9e-5, None, True),
        (2e-4, None, False),
        (2e-4, (0.5, 2.0), True),
        (2e-4, (0.5, 2.1), False),
        (2e-4, (1.1, 2.0), False),
        (float("nan"), None, False),
    ],
)
def test_a_model_is_within_the_bar_of_its_vectors_or_of_its_pixels(largest, levels, is_within):
    result = models.Result("a model", "openvino", 1e-6, largest, levels)
    assert result.is_within == is_within
    assert models.format_table([result]).endswith(" | yes |" if is_within else " | no |")


def test_a_run_with_a_clip_model_is_compared_with_onnx_runtime(capsys):
    assert models.main(["--images=3", f"--only={CLIP}"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "3 images"
    assert table[-1].startswith(f"| {CLIP} | openvino | ")


def test_other_vectors_miss_the_bar(tmp_path):
    images = [jpeg_bytes(seed=seed) for seed in range(3)]
    model = models.onnx_vit(tmp_path, "")
    moved = models.Model(
        model.handle, lambda asked: model.reference(asked[::-1]), pixels=lambda asked: model.pixels(asked[::-1])
    )
    result = models.run_model(CLIP, moved, images, tmp_path)
    assert not result.is_within
    assert np.isfinite(result.largest)
