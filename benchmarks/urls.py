"""Measures the embedding of images at web addresses: `python -m benchmarks.urls [--peer_python FILE]`.

A local server answers each request after 20 ms. The pipeline fetches and embeds 10,000 small images. img2dataset, on
the same list, only downloads them to tars, as they are or (its default) resized; in a third way, the pipeline then
embeds the tars. Ratios to this third way are computed within a round. The pipeline on the same images as local files
shows the cost of fetching. img2dataset may be installed in another
environment, whose Python is `--peer_python`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import data
from benchmarks.measure import Measurement, PeerError, Round, measure
from benchmarks.report import describe_machine
from benchmarks.run import DEFAULT_MODULE, prepare_task
from benchmarks.task import Task

PIPELINE = "pipeline"
BASELINE = "img2dataset, then pipeline"
FROM_LIST = {"input_format": "list", "key_feature": None, "allow_private_addresses": True}
OTHERS = {"key_feature": None}
FILES = "pipeline, image files"
PEERS: Mapping[str, tuple[tuple[str, Mapping[str, object]], ...]] = {
    PIPELINE: (("pipeline", FROM_LIST),),
    FILES: (("pipeline", OTHERS),),
    "img2dataset": (("img2dataset_tars", {}),),
    "img2dataset, resized": (("img2dataset_tars", {"resize": True}),),
    BASELINE: (("img2dataset_tars", {}), ("pipeline", OTHERS)),
}
"""Peers and their options by label; each one reads the output of the one before it."""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.urls", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument("--sizes", type=int, nargs=2, default=(2000, 10_000), metavar="N", help="default: 2000 10000")
    parser.add_argument("--delay", type=float, default=0.02, metavar="SECONDS", help="of the server. Default: 0.02")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--peer_python", default=sys.executable, metavar="FILE", help="the Python with img2dataset")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="for the JSON")
    return parser


@contextlib.contextmanager
def serving(images: Sequence[bytes], delay_s: float, scratch: Path) -> Iterator[int]:
    """Serves images in a separate process; returns the port."""
    directory = scratch / "served"
    directory.mkdir()
    for number, image in enumerate(images):
        (directory / f"{number:08d}.jpg").write_bytes(image)
    command = [sys.executable, "-m", "benchmarks.url_server", str(directory), f"--delay={delay_s}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def run_rounds(
    task: Task, port: int, sizes: Sequence[int], rounds: int, scratch: Path, peer_python: str
) -> dict[str, list[Round]]:
    """Runs all in turn, in every other round in reverse order; reports and drops one that fails.

    Returns the rounds by label.
    """
    found: dict[str, list[Round]] = {label: [] for label in PEERS}
    for size in sizes:
        lines = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(size)]
        (scratch / f"{size}.txt").write_text("\n".join(lines))
        (scratch / f"{size}").mkdir()
        served = sorted((scratch / "served").iterdir())
        for number in range(size):
            (scratch / f"{size}" / f"{number:08d}.jpg").hardlink_to(served[number % len(served)])
    for number in range(rounds):
        for label in list(PEERS) if number % 2 == 0 else list(PEERS)[::-1]:
            if label not in found:
                continue
            try:
                both = [_run(label, task, size, scratch, peer_python) for size in sizes]
            except PeerError as error:
                del found[label]
                print(f"{label}: left out: {error}; pip install -e '.[benchmark-img2dataset]'", file=sys.stderr)
                continue
            found[label].append(Round(*both))
            print(f"round {number + 1}: {label}: {found[label][-1].images_per_second:.0f} images/s", file=sys.stderr)
    return found


def _run(label: str, task: Task, images: int, scratch: Path, peer_python: str) -> Measurement:
    files, found = (str(scratch / (str(images) if label == FILES else f"{images}.txt")),), []
    outputs = [scratch / f"output-{number}" for number in range(len(PEERS[label]))]
    try:
        for (peer, options), output in zip(PEERS[label], outputs, strict=True):
            asked = dataclasses.replace(task, files=files, output=str(output), options=dict(options))
            python = sys.executable if peer == "pipeline" else peer_python
            found.append(measure(peer, asked, images, python=python))
            files = tuple(map(str, sorted(output.glob("*.tar"))))
            summary = output / "summary.json"
            if summary.exists() and (embedded := json.loads(summary.read_text())["embedded"]) != images:
                raise PeerError(f"{embedded} of {images} images were embedded")
    finally:
        for output in outputs:
            shutil.rmtree(output, ignore_errors=True)
    return dataclasses.replace(
        found[-1],
        seconds=sum(item.seconds for item in found),
        cpu_s=sum(item.cpu_s for item in found),
        peak_mib=max(item.peak_mib for item in found),
        other_cores=max(item.other_cores for item in found),
    )


def format_table(rounds: Mapping[str, Sequence[Round]]) -> str:
    """Returns medians over the rounds as a Markdown table."""
    lines = [
        "| | images/s | ratio | images/s with start-up | ratio | CPU s / 1000 | peak MiB | others' cores |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for label, own in rounds.items():
        speeds = [item.images_per_second for item in own]
        whole = [_whole(item) for item in own]
        peers = rounds.get(BASELINE, ())
        ratios = [speed / peer.images_per_second for speed, peer in zip(speeds, peers, strict=False)]
        whole_ratios = [speed / _whole(peer) for speed, peer in zip(whole, peers, strict=False)]
        lines.append(
            f"| {label} | {statistics.median(speeds):.0f} | {_median(ratios)} | {statistics.median(whole):.0f} "
            f"| {_median(whole_ratios)} | {statistics.median(item.cpu_s_per_1000 for item in own):.2f} "
            f"| {max(item.large.peak_mib for item in own):.0f} | {max(item.large.other_cores for item in own):.1f} |"
        )
    return "\n".join(lines)


def _whole(item: Round) -> float:
    return item.large.images / item.large.seconds


def _median(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    images = data.read_images(options.input) if options.input else data.generate_images(side=200)
    task = prepare_task(options.module)
    with tempfile.TemporaryDirectory() as folder, serving(images, options.delay, Path(folder)) as port:
        rounds = run_rounds(task, port, options.sizes, options.rounds, Path(folder), options.peer_python)
    table = format_table(rounds)
    print(f"{len(images)} distinct images of {sum(map(len, images)) / len(images) / 1000:.1f} kB\n\n{table}")
    options.output.mkdir(parents=True, exist_ok=True)
    report = {"machine": describe_machine(), "module": options.module, "table": table.splitlines()}
    (options.output / "urls.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
