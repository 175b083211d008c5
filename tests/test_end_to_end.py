"""The command as a user starts it: a process of its own, in another directory than this package's."""

import functools
import gzip
import http.server
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.reader import read_embeddings, read_failures
from pipeline.testing import TINY_IMAGE_SIZE, make_example, make_tfrecord, tiny_vectors
from tests.image_samples import JPEGS, OTHERS_WITH_REFERENCE, pixels, save

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parent.parent
NETWORK = "untrained:mobilenet_v2_035_96"
TINY_ENGINE = "--engine=openvino"  # it starts in a second where TensorFlow takes four

PHOTOS = {
    **{f"photo-{i:02d}.jpg": save(pixels(height=90 + 11 * i, width=150 - 7 * i, seed=i), "JPEG") for i in range(10)},
    "more/grey.jpeg": JPEGS["jpeg grey"],
    "more/progressive.JPG": JPEGS["jpeg progressive"],
    "more/deep/ünï code.png": OTHERS_WITH_REFERENCE["png RGBA"],
    "more/deep/animation.gif": OTHERS_WITH_REFERENCE["gif animation"],
}
KEYS = sorted(name.encode() for name in PHOTOS)


@dataclass(frozen=True)
class Run:
    """A finished process and its output."""

    code: int
    stdout: str
    stderr: str
    output: Path

    @functools.cached_property
    def rows(self) -> dict[bytes, dict[str, object]]:
        found = [row for batch in read_embeddings(str(self.output)) for row in batch.to_pylist()]
        rows = {row["key"]: row for row in found}
        assert len(rows) == len(found)
        return rows

    @property
    def vectors(self) -> dict[bytes, bytes]:
        """The vectors by key, to the bit."""
        return {key: np.array(row["embedding"], np.float32).tobytes() for key, row in sorted(self.rows.items())}

    @property
    def summary(self) -> dict[str, object]:
        return json.loads((self.output / "summary.json").read_text())


Runner = Callable[..., Run]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: photos, and the same images packed in TFRecords."""
    folder = tmp_path_factory.mktemp("a user's folder")
    for name, image in PHOTOS.items():
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    (folder / "photos/notes.md").write_text("not an image")
    examples = [
        make_example({"image": image, "id": name, "label": [index, -index], "score": index / 3, "extra": b"x"})
        for index, (name, image) in enumerate(PHOTOS.items())
    ]
    (folder / "records").mkdir()
    for shard in range(3):
        content = make_tfrecord(examples[shard::3])
        name = f"train-{shard:05d}-of-00003"
        if shard == 2:
            (folder / "records" / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / "records" / name).write_bytes(content)
    (folder / "list.txt").write_text("photos/photo-03.jpg\n\nphotos/more/grey.jpeg\nphotos/gone.jpg\n")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Runner:
    """Starts the command in the user's folder."""
    counter = iter(range(1000))

    def start(*args: object, output: Path | None = None) -> Run:
        target = output or folder / f"out-{next(counter)}"
        command = [sys.executable, "-m", "pipeline.run", "--runner=DirectRunner", f"--output={target}"]
        process = subprocess.run(
            [*command, *map(str, args)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in process.stderr
        return Run(process.returncode, process.stdout, process.stderr, target)

    return start


@pytest.fixture(scope="module")
def tiny(run: Runner, tiny_module: Path) -> Run:
    """The photos through the tiny module: the vectors that the runs below must find again."""
    result = run("--input=photos", f"--module={tiny_module}", TINY_ENGINE)
    assert result.code == 0
    return result


@pytest.fixture(scope="module")
def photos(run: Runner) -> Run:
    """The photos through a network of convolutions, by the engine of choice."""
    return run("--input=photos", f"--module={NETWORK}")


@pytest.fixture(scope="module")
def records(run: Runner) -> Run:
    """The same images in TFRecords, likewise."""
    return run(
        "--input=records/train-*-of-*",
        "--image_feature=image",
        "--key_feature=id",
        "--passthrough=label,score",
        f"--module={NETWORK}",
    )


def tf_images(size: int) -> np.ndarray:
    """The photos, by key, as TensorFlow decodes and resizes them: float32 [N, size, size, 3]."""
    import tensorflow as tf

    def decode(name: str) -> np.ndarray:
        image = PHOTOS[name]
        if name.lower().endswith(("jpg", "jpeg")):
            decoded = tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")
        else:
            decoded = tf.io.decode_image(image, channels=3, expand_animations=False)
        return tf.image.resize(tf.cast(decoded, tf.float32) / 255, [size, size], method="bilinear", antialias=False)

    return np.stack([decode(key.decode()) for key in KEYS])


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def test_a_directory_of_photos(photos):
    assert photos.code == 0
    assert sorted(photos.rows) == KEYS
    summary = photos.summary
    assert (summary["records"], summary["embedded"], summary["failed"]) == (len(KEYS), len(KEYS), 0)
    assert (summary["dimension"], summary["runner"], summary["module"]) == (1280, "DirectRunner", NETWORK)
    assert re.match(rf"{len(KEYS)} of {len(KEYS)} records embedded in .* 1280 values each\n", photos.stdout)
    assert f"data set  {photos.output}\n" in photos.stdout
    assert "left out 1 files: 1 of no known kind by their names (1 of .md)" in photos.stderr
    assert f"WARNING: {NETWORK} has random weights." in photos.stderr


def test_vectors_are_those_of_tensorflow(photos, convolutions):
    import tensorflow as tf

    signature = tf.saved_model.load(convolutions, tags=[]).signatures["image_feature_vector"]
    expected = signature(images=tf.constant(tf_images(96)))["default"].numpy()
    found = np.array([photos.rows[key]["embedding"] for key in KEYS], np.float32)
    assert relative_l2(found, expected) < 1e-4


def test_packed_in_records_they_give_the_same_vectors_to_the_bit(photos, records):
    assert records.code == 0
    assert records.vectors == photos.vectors
    for index, name in enumerate(PHOTOS):
        row = records.rows[name.encode()]
        assert row.keys() == {"key", "embedding", "label", "score"}
        assert row["label"] == [index, -index]
        assert row["score"] == [float(np.float32(index / 3))]


def test_the_tiny_module_computes_what_it_says(run, tiny, tiny_module):
    expected = tiny_vectors(tf_images(TINY_IMAGE_SIZE))
    by_tensorflow = run("--input=photos", f"--module={tiny_module}", "--engine=tensorflow")
    assert by_tensorflow.code == 0
    for result in (tiny, by_tensorflow):
        found = np.array([result.rows[key]["embedding"] for key in KEYS], np.float32)
        assert relative_l2(found, expected) < 1e-4


def test_a_list_file(run, tiny, tiny_module):
    result = run("--input=list.txt", f"--module={tiny_module}", TINY_ENGINE, "--max_failure_rate=0.5")
    assert result.code == 0
    assert result.vectors == {
        b"photos/photo-03.jpg": tiny.vectors[b"photo-03.jpg"],
        b"photos/more/grey.jpeg": tiny.vectors[b"more/grey.jpeg"],
    }
    (failure,) = read_failures(str(result.output))
    assert (failure.key, failure.stage, failure.reason) == (b"photos/gone.jpg", "read", "read_error")


@pytest.fixture(scope="module")
def tarball(folder: Path, tiny_module: Path) -> Path:
    (folder / "served").mkdir()
    path = folder / "served" / "module.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tiny_module, ".")
    return path


def test_several_inputs_and_a_module_in_a_tarball(run, tiny, tarball, folder):
    result = run(
        "--input=photos/photo-0[0-4]*",
        "--input=records",
        "--image_feature=image",
        f"--module={tarball.relative_to(folder)}",
        TINY_ENGINE,
    )
    assert result.code == 0
    images = {key: vector for key, vector in result.vectors.items() if b"@" not in key}
    assert images == {b"photos/photo-%02d.jpg" % i: tiny.vectors[b"photo-%02d.jpg" % i] for i in range(5)}
    found = {key: vector for key, vector in result.vectors.items() if b"@" in key}
    assert all(re.fullmatch(rb"records/train-0000\d-of-00003(\.gz)?@\d+", key) for key in found)
    assert sorted(found.values()) == sorted(tiny.vectors.values())
    assert b"records/train-00002-of-00003.gz@0" in found


@pytest.fixture(scope="module")
def address(tarball: Path) -> Iterator[str]:
    """The address of `python -m http.server` in the tarball's directory."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tarball.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_module_from_a_web_server(run, tiny, address, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    result = run("--input=photos", f"--module={address}/module.tar.gz", TINY_ENGINE)
    assert result.code == 0
    assert result.vectors == tiny.vectors
    assert result.summary["module_sha256"] == tiny.summary["module_sha256"]


def loads(result: Run) -> list[str]:
    return re.findall(r"^process (\d+) loaded the module", result.stderr, re.MULTILINE)


def test_threads_share_one_module(run, tiny, tiny_module):
    result = run(
        "--input=photos/*.jpg",
        "--input=records",
        "--image_feature=image",
        f"--module={tiny_module}",
        TINY_ENGINE,
        "--direct_num_workers=3",
        "--direct_running_mode=multi_threading",
    )
    assert result.code == 0
    assert sorted(set(result.vectors.values())) == sorted(set(tiny.vectors.values()))
    assert loads(result) == []  # the launcher has loaded it, and its threads take that


def test_workers_that_are_processes(run, tiny, tiny_module):
    result = run(
        "--input=photos",
        f"--module={tiny_module}",
        TINY_ENGINE,
        "--direct_num_workers=2",
        "--direct_running_mode=multi_processing",
    )
    assert result.code == 0
    assert result.vectors == tiny.vectors


@pytest.fixture(scope="module")
def two_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module with two signatures, of which one has two outputs, and one that takes no images."""
    import tensorflow as tf

    images = tf.TensorSpec([None, 16, 16, 3], tf.float32, name="images")

    @tf.function(input_signature=[images])
    def means(images):
        return {"default": tf.reduce_mean(images, [1, 2])}

    @tf.function(input_signature=[images])
    def extremes(images):
        return {"low": tf.reduce_min(images, [1, 2]), "high": tf.reduce_max(images, [1, 2])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def lengths(text):
        return {"default": tf.strings.length(text)}

    module, directory = tf.Module(), tmp_path_factory.mktemp("modules") / "two_outputs"
    signatures = {"serving_default": means, "extremes": extremes, "lengths": lengths}
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(directory), signatures=signatures)
    return directory


def test_signature_and_output_of_choice(run, two_outputs):
    flags = ["--signature=extremes", "--output_key=high", "--preprocess=hub"]
    result = run("--input=photos", f"--module={two_outputs}", *flags)
    assert result.code == 0
    found = np.array([result.rows[key]["embedding"] for key in KEYS], np.float32)
    assert relative_l2(found, tf_images(16).max(axis=(1, 2))) < 1e-4
    spec = json.loads((result.output / "spec.json").read_text())
    assert (spec["signature"], spec["output_key"], spec["dimension"]) == ("extremes", "high", 3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--input=nowhere"], "no input matched nowhere; expected image files, .*; check the path"),
        (["--module=no/such/module"], "module no/such/module: not found, expected a local directory, .*; check its .*"),
        (["--module=photos"], r"module photos: not a module, it holds no saved_model\.pb; expected .*; check .*"),
        (
            ["--module=http://127.0.0.1:1/m.tar.gz"],
            r"module http://127\.0\.0\.1:1/m\.tar\.gz: .*refused, expected a server that answers .*",
        ),
        (
            ["--module=MODULE", "--signature=lengths"],
            r"signature 'lengths' takes no images: it takes .*; expected one input of float or uint8 .*",
        ),
        (
            ["--module=MODULE", "--signature=extremes", "--output_key=middle"],
            "signature 'extremes' has no output 'middle'; choose --output_key from: (low, high|high, low)",
        ),
        (["--inptu=photos"], r"unknown argument '--inptu=photos'; did you mean --input\?"),
        (["--config=bad.yaml"], r"--config=bad\.yaml is not YAML: .*"),
        (["--runner=FlinkRunner"], "--runner=FlinkRunner needs --temp_location=DIRECTORY to bring the module .*"),
        (["--output=photos/photo-00.jpg"], r"--output=photos/photo-00\.jpg is a file; expected a directory"),
        (
            ["--input=photos/notes.md", "--input_format=tfrecord"],
            r"no records: .*/photos/notes\.md is no TFRecord; expected image files, TFRecords .*",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, folder, two_outputs, args, message):
    (folder / "bad.yaml").write_text("input: [photos\n")
    given = [arg.replace("MODULE", str(two_outputs)) for arg in args]
    defaults = {"--input": "--input=photos/*.jpg", "--module": f"--module={two_outputs}"}
    result = run(*(default for flag, default in defaults.items() if not any(flag in arg for arg in given)), *given)
    assert result.code == 2
    assert result.stdout == ""
    assert re.fullmatch(f"(Fetching module .*\n)?error: {message}\n", result.stderr)
    assert not result.output.exists()


def test_an_output_of_other_vectors_is_refused(run, tiny, two_outputs):
    result = run("--input=photos/*.jpg", f"--module={two_outputs}", output=tiny.output)
    assert result.code == 2
    assert re.fullmatch(
        rf"error: --output={re.escape(str(tiny.output))} holds vectors of another kind \(.*module_sha256.*\); name "
        "another directory, or replace the data set with --overwrite\n",
        result.stderr,
    )


def test_too_many_failures_exit_with_3(run, folder, tiny_module):
    (folder / "half").mkdir()
    (folder / "half/good.jpg").write_bytes(PHOTOS["photo-00.jpg"])
    (folder / "half/bad.jpg").write_bytes(b"no image")
    result = run("--input=half", f"--module={tiny_module}", TINY_ENGINE)
    assert result.code == 3
    assert "error: 1 of 2 records failed (1 not_an_image), more than --max_failure_rate=0.1 allows;" in result.stderr
    assert list(result.rows) == [b"good.jpg"]
    assert (result.summary["records"], result.summary["embedded"], result.summary["failed"]) == (2, 1, 1)


def test_help_tells_every_flag(run):
    result = run("--help")
    assert result.code == 0
    assert all(f"--{name}" in result.stdout for name in ("input", "module", "output", "wave_bytes", "dry_run"))
