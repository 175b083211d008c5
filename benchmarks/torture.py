"""`python -m benchmarks.torture`: how decoders treat some 580 odd images, and thousands of randomly damaged ones.

    python -m benchmarks.torture [--mutations=5000] [--seed=0] [--show]

Prints a table of scores for the corpus, and every mutation that this pipeline embeds without a word although another
decoder reads other pixels. The exit code is 1 if a decoder of this pipeline crashed or hung, or such a mutation exists.
"""

import argparse
import contextlib
import sys
from collections import Counter

import numpy as np

from benchmarks.torture_corpus import make_corpus, mutate
from benchmarks.torture_decoders import Answer, Process, installed
from benchmarks.torture_formats import OddImage

OURS = "this pipeline"
SCORES = ("right", "refused with the true reason", "refused wrongly", "wrong pixels", "crashed", "hung")
# The decoders whose pixels a damaged image should have, by the first two bytes; the first that reads the image decides.
# TensorFlow and OpenCV ignore the bit fields of a BMP, and paint the transparent pixels of a GIF. OpenCV returns pixels
# of damaged TIFFs that it has not read.
_REFERENCES = {b"BM": ("Pillow",), b"GI": ("Pillow",), b"II": ("tifffile",), b"MM": ("tifffile",)}
_OTHER_REFERENCES = ("TensorFlow", "OpenCV", "Pillow")


def judge(image: OddImage, answer: Answer, reference: np.ndarray | None) -> str:
    """Returns the score of an answer, one of `SCORES`.

    Args:
      image: the image.
      answer: of a decoder.
      reference: the truth of an image that has neither pixels nor reasons.
    """
    if answer.outcome in ("crashed", "hung"):
        return answer.outcome
    if answer.outcome == "refused":
        is_true = image.reasons and (not answer.reason or answer.reason in image.reasons)
        return "refused with the true reason" if is_true else "refused wrongly"
    truth = reference if image.pixels is None and not image.reasons else image.pixels
    if truth is not None and differs_by(answer.pixels, truth) <= image.tolerance:
        return "right"
    return "right" if image.reasons and answer.message else "wrong pixels"


def differs_by(found: np.ndarray | None, expected: np.ndarray) -> int:
    """Returns the largest difference of two images; 256 if their sizes differ."""
    if found is None or found.shape != expected.shape:
        return 256
    return int(np.abs(found.astype(int) - expected).max(initial=0))


def run_corpus(images: list[OddImage], *, show: bool) -> dict[str, Counter[str]]:
    """Returns the scores of all installed decoders, by decoder."""
    answers: dict[str, list[Answer]] = {}
    for name in installed():
        with Process(name) as decode:
            answers[name] = [decode(image.data) for image in images]
    scores = {}
    for name, given in answers.items():
        judged = [
            judge(image, answer, truth.pixels if truth.pixels is not None else second.pixels)
            for image, answer, truth, second in zip(
                images, given, answers["TensorFlow"], answers["Pillow"], strict=True
            )
        ]
        scores[name] = Counter(judged)
        if show and name == OURS:
            for image, answer, score in zip(images, given, judged, strict=True):
                if score not in SCORES[:2]:
                    print(f"{image.name}: {score}: {answer.reason} {answer.message}")
    return scores


def run_mutations(images: list[OddImage], count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Returns the outcomes of damaged images, and the names of those that are embedded with other pixels in silence.

    The reference is the first of `_REFERENCES` that returns pixels of the same size.
    """
    outcomes: Counter[str] = Counter()
    silent = []
    with contextlib.ExitStack() as stack:
        decoders = {name: stack.enter_context(Process(name)) for name in (OURS, *_OTHER_REFERENCES, "tifffile")}
        for image in mutate(images, count, seed):
            answer = decoders[OURS](image.data)
            outcomes[answer.reason or ("damaged" if answer.message else answer.outcome)] += 1
            if answer.pixels is None or answer.message:
                continue
            for name in _REFERENCES.get(image.data[:2], _OTHER_REFERENCES):
                found = decoders[name](image.data).pixels
                if found is not None and found.shape == answer.pixels.shape:
                    if differs_by(answer.pixels, found):
                        silent.append(f"{image.name} (than {name})")
                    break
    return outcomes, silent


def main() -> int:
    """Runs the benchmark; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=5000, help="number of randomly damaged images")
    parser.add_argument("--seed", type=int, default=0, help="of the random damage")
    parser.add_argument("--show", action="store_true", help="list the images that this pipeline does not treat right")
    args = parser.parse_args()
    images = make_corpus()
    scores = run_corpus(images, show=args.show)
    print(f"{len(images)} images\n")
    print(f"| decoder | {' | '.join(SCORES)} |\n| --- |{' --- |' * len(SCORES)}")
    for name, counts in scores.items():
        print(f"| {name} | {' | '.join(str(counts[score]) for score in SCORES)} |")
    outcomes, silent = run_mutations(images, args.mutations, args.seed)
    print(f"\n{args.mutations} mutations: {', '.join(f'{count} {name}' for name, count in outcomes.most_common())}")
    for name in silent:
        print(f"  other pixels in silence: {name}")
    broken = scores[OURS]["crashed"] + scores[OURS]["hung"] + outcomes["crashed"] + outcomes["hung"]
    return 1 if broken or silent else 0


if __name__ == "__main__":
    sys.exit(main())
