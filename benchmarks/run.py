"""Measures this pipeline and its peers on the same records: `python -m benchmarks.run [--input PATTERN]`.

Every peer runs in a separate process, on a few and on many images, in several rounds. The sustained speed is the slope
between both runs, so start-up does not count. Ratios are computed within a round, and the table shows their medians:
so a slow hour of the machine matters less. Each run must write one vector for each key; the table shows how far a
peer's vectors are from the pipeline's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import data
from benchmarks.contenders import CONTENDERS, PIPELINE, Contender, Form, NotInstalled
from benchmarks.measure import Measurement, PeerError, Round, measure
from benchmarks.report import describe_machine, format_table, plot, summarize
from benchmarks.task import Task
from benchmarks.vectors import Difference, Vectors, WrongOutput, compare_vectors, read_vectors
from pipeline.core.cores import usable_cores
from pipeline.engines.base import ModuleFunction
from pipeline.engines.conversion import converted
from pipeline.hub.resolve import resolve_module
from pipeline.savedmodel.signatures import choose_signature

DEFAULT_MODULE = "untrained:mobilenet_v2_050_160"


@dataclass(frozen=True)
class Run:
    """One run of a contender: its time and memory, and its vectors."""

    measurement: Measurement
    vectors: Vectors


@dataclass(frozen=True)
class Results:
    """The results of contenders, by label.

    Attributes:
      rounds: their rounds.
      differences: of their vectors from the pipeline's; empty if the pipeline did not run.
    """

    rounds: Mapping[str, Sequence[Round]]
    differences: Mapping[str, Difference]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument("--small", type=int, default=500, metavar="N", help="images of the small run. Default: 500")
    parser.add_argument("--large", type=int, default=2500, metavar="N", help="images of the large run. Default: 2500")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="LABEL",
        help=f"may be repeated; one of {', '.join(c.label for c in CONTENDERS)}",
    )
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="for JSON and PNG")
    return parser


def prepare_task(handle: str) -> Task:
    """Resolves and converts a module, so that the measured runs find it in the cache."""
    module = resolve_module(handle)
    signature = choose_signature(module)
    converted(ModuleFunction(module.handle, module.path, module.sha256, signature))
    return Task(
        files=(),
        module=module.path,
        sha256=module.sha256,
        signature=signature.signature,
        input_key=signature.input_key,
        output_key=signature.output_key,
        height=signature.height,
        width=signature.width,
        tags=() if module.format == "tf1_hub" else ("serve",),
        output="",
        threads=usable_cores(),
    )


def write_images(images: Sequence[bytes], count: int, form: Form, scratch: Path) -> None:
    """Writes `count` images in a form, where `run_once` finds them."""
    write = {
        "tfrecord": data.write_tfrecords,
        "files": data.write_files,
        "parquet": data.write_parquet,
        "tar": data.write_tars,
    }
    write[form](images, count, input_directory(scratch, form, count))


def input_directory(scratch: Path, form: str, count: int) -> Path:
    """Returns the directory in which `run_once` looks for images."""
    return scratch / f"{form}-{count}"


def run_once(contender: Contender, task: Task, images: int, scratch: Path) -> Run:
    """Runs a contender once, with an empty output directory.

    Raises:
      PeerError: the peer ended with an error.
      WrongOutput: the peer did not write exactly one vector for each image.
    """
    output = scratch / "output"
    output.mkdir()
    directory = input_directory(scratch, contender.form, images)
    files = (directory,) if contender.form == "files" else sorted(directory.iterdir())
    asked = dataclasses.replace(task, files=tuple(map(str, files)), output=str(output), options=dict(contender.options))
    try:
        return Run(measure(contender.peer, asked, images), read_vectors(output, images))
    finally:
        shutil.rmtree(output, ignore_errors=True)


def run_rounds(
    contenders: Sequence[Contender], task: Task, sizes: tuple[int, int], rounds: int, scratch: Path
) -> Results:
    """Runs all contenders in turn, `rounds` times; reports and drops a contender that fails."""
    found: dict[str, list[Round]] = {contender.label: [] for contender in contenders}
    vectors: dict[str, Vectors] = {}
    for number in range(rounds):
        # Every other round runs in reverse order, so that no contender always follows the same one.
        for contender in contenders if number % 2 == 0 else contenders[::-1]:
            if contender.label not in found:
                continue
            try:
                small, large = (run_once(contender, task, size, scratch) for size in sizes)
            except (PeerError, WrongOutput) as error:
                del found[contender.label]
                print(f"{contender.label}: left out: {error}", file=sys.stderr)
                continue
            vectors.setdefault(contender.label, small.vectors)
            last = Round(small.measurement, large.measurement)
            found[contender.label].append(last)
            print(
                f"round {number + 1}: {contender.label}: {last.images_per_second:.0f} images/s; others kept "
                f"{last.large.other_cores:.1f} cores busy",
                file=sys.stderr,
            )
    reference = vectors.get(PIPELINE)
    differences = {label: compare_vectors(vectors[label], reference) for label in found} if reference else {}
    return Results(found, differences)


def installed(contenders: Sequence[Contender]) -> list[Contender]:
    """Returns the contenders whose libraries are installed; reports the others."""
    found = []
    for contender in contenders:
        try:
            contender.version()
        except NotInstalled as error:
            print(f"{contender.label}: left out: {error}", file=sys.stderr)
        else:
            found.append(contender)
    return found


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    unknown = set(options.only) - {contender.label for contender in CONTENDERS}
    if unknown or not 0 < options.small < options.large:
        print(f"unknown labels {sorted(unknown)}, or not 0 < --small < --large", file=sys.stderr)
        return 2
    contenders = installed([item for item in CONTENDERS if not options.only or item.label in options.only])
    images = data.read_images(options.input) if options.input else data.generate_images()
    task = prepare_task(options.module)
    sizes = (options.small, options.large)
    with tempfile.TemporaryDirectory() as scratch:
        for form in sorted({contender.form for contender in contenders}):
            for size in sizes:
                write_images(images, size, form, Path(scratch))
        results = run_rounds(contenders, task, sizes, options.rounds, Path(scratch))
    rows = summarize(results.rounds, results.differences)
    machine = describe_machine()
    print(format_table(rows))
    options.output.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": machine,
        "module": options.module,
        "images": {"distinct": len(images), "mean_bytes": sum(map(len, images)) / len(images), "runs": sizes},
        "rows": rows,
        "rounds": {label: [dataclasses.asdict(item) for item in rounds] for label, rounds in results.rounds.items()},
    }
    (options.output / "benchmark.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(rows, options.output / "benchmark.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
