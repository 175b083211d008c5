"""The corpus of odd images: what was embedded keeps its pixels, and random damage neither crashes nor hangs."""

import hashlib
import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.torture_corpus import make_corpus, mutate
from benchmarks.torture_decoders import Answer, ours
from benchmarks.torture_formats import OddImage
from pipeline.core.failures import FAILURE_REASONS

GOLDEN = Path(__file__).parents[1] / "golden/torture.zip"
"""Outcomes by image: a reason, or the digest of the decoded pixels before any resize.

`outcomes.json` comes from the version before AVIF, HEIC and the decoders for rare TIFFs were added. Images whose bytes
depend on the version of an encoder are stored beside it; the others come from `make_corpus`.
"""


@pytest.fixture(scope="module")
def corpus() -> dict[str, OddImage]:
    return {image.name: image for image in make_corpus()}


@pytest.fixture(scope="module")
def golden(corpus) -> dict[str, tuple[bytes, str]]:
    with zipfile.ZipFile(GOLDEN) as archive:
        outcomes = json.loads(archive.read("outcomes.json"))
        stored = {name.removeprefix("images/"): archive.read(name) for name in archive.namelist()[1:]}
    return {name: (stored.get(name) or corpus[name].data, outcome) for name, outcome in outcomes.items()}


def outcome_of(answer: Answer) -> str:
    if answer.pixels is None:
        return answer.reason
    return hashlib.sha256(repr(answer.pixels.shape).encode() + answer.pixels.tobytes()).hexdigest()[:16]


def test_what_was_embedded_keeps_its_pixels(golden):
    assert len(golden) > 300
    found = {name: outcome_of(ours(data)) for name, (data, _) in golden.items()}
    assert found == {name: outcome for name, (_, outcome) in golden.items()}


def test_whole_images_are_decoded_right(corpus):
    wrong, refused = [], []
    for image in corpus.values():
        if ": " in image.name or image.pixels is None:
            continue
        answer = ours(image.data)
        if answer.pixels is None:
            refused.append(f"{image.name}: {answer.message}")
        elif (
            answer.pixels.shape != image.pixels.shape
            or np.abs(answer.pixels.astype(int) - image.pixels).max() > image.tolerance
        ):
            wrong.append(image.name)
        assert answer.pixels is not None or answer.reason in image.reasons, refused[-1]
    assert (wrong, refused) == ([], [])


def test_the_rest_is_refused_with_a_true_reason(corpus):
    for image in corpus.values():
        if ": " not in image.name and image.pixels is None and image.reasons:
            answer = ours(image.data)
            assert answer.reason in image.reasons, f"{image.name}: {answer}"


def test_incomplete_images_are_never_embedded_in_silence(corpus):
    for image in corpus.values():
        if image.name.endswith((" %", "last byte missing", "with an end")):
            answer = ours(image.data)
            is_whole = (
                answer.pixels is not None
                and image.pixels is not None
                and np.abs(answer.pixels.astype(int) - image.pixels).max() <= image.tolerance
            )
            assert is_whole or answer.message, image.name


def test_random_damage(corpus):
    for image in mutate(list(corpus.values()), 300, seed=1):
        started = time.monotonic()
        answer = ours(image.data)  # any other exception than an `ImageError` fails the test
        assert time.monotonic() - started < 10, image.name
        assert answer.outcome == "pixels" or answer.reason in FAILURE_REASONS, image.name
        assert "\n" not in answer.message
