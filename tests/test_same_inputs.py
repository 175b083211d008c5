"""The same images give the same vectors and failures, to the last bit, in whatever kind of file they are."""

import itertools
import json
import os
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import InputError, TooManyFailures
from pipeline.dataset.reader import read_failures
from pipeline.dataset.verify import show_failure
from pipeline.inputs import csv_files, image_files, parquet_files, tar
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord
from tests.datasets import complete, embed, read_rows, read_vectors
from tests.inputs.archives import make_tar
from tests.web_server import reply

PHOTOS = 20
NAMES = [f"{index:03d}" for index in range(PHOTOS)]
IMAGES = [jpeg_bytes(seed=index) for index in range(PHOTOS)]
DAMAGED = {3: IMAGES[3][:400], 8: b"", 17: b"no image"}
KINDS = ("images", "tfrecord", "webdataset", "parquet", "csv")
ON_WEB = ("list of addresses", "csv of addresses", "parquet of addresses")
KEYS = {"tfrecord": "id", "webdataset": "json:id", "parquet": "id", "csv": "id"}


def write_inputs(directory: Path, images: list[bytes], kind: str) -> Path:
    """Writes images as files of a kind, three of each kind of records."""
    directory.mkdir(parents=True)
    rows = list(zip(NAMES, images, strict=True))
    for index in range(3):
        mine = rows[index::3]
        if kind in ("images", "csv"):
            for name, image in mine:
                (directory / f"{name}.jpg").write_bytes(image)
            if kind == "csv":
                lines = ["path,id", *(f"{name}.jpg,{name}" for name, _ in mine)]
                (directory / f"{index}.csv").write_text("\n".join(lines))
        elif kind == "tfrecord":
            examples = [make_example({"image/encoded": image, "id": name}) for name, image in mine]
            (directory / f"{index}.tfrecord").write_bytes(make_tfrecord(examples))
        elif kind == "webdataset":
            pairs = [((f"{n}.jpg", image), (f"{n}.json", json.dumps({"id": n}).encode())) for n, image in mine]
            (directory / f"{index}.tar").write_bytes(make_tar(itertools.chain.from_iterable(pairs)))
        else:
            names, values = zip(*mine, strict=True)
            structs = pa.array([{"bytes": image, "path": None} for image in values], _STRUCT)
            table = pa.table({"id": pa.array(names), "image": structs, "n": pa.array(map(int, names), pa.int16())})
            pq.write_table(table, directory / f"{index}.parquet", row_group_size=4)
    return directory


def write_addresses(directory: Path, addresses: list[str], kind: str) -> Path:
    """Writes the addresses of images as a list, or as three tables."""
    directory.mkdir(parents=True)
    if kind.startswith("list"):
        (directory / "all.list").write_text("\n".join(addresses))
    for index in range(3):
        names, mine = NAMES[index::3], addresses[index::3]
        if kind.startswith("csv"):
            lines = ["url,id", *(f"{address},{name}" for name, address in zip(names, mine, strict=True))]
            (directory / f"{index}.csv").write_text("\n".join(lines))
        elif kind.startswith("parquet"):
            pq.write_table(pa.table({"id": names, "url": mine}), directory / f"{index}.parquet")
    return directory


_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def outcome(output):
    """Returns the vectors and the reasons of failures by name."""
    vectors = {name_of(key): vector for key, vector in read_vectors(output).items()}
    failures = {name_of(item.key): item.reason for item in read_failures(str(output))}
    return vectors, failures


def name_of(key):
    return key.decode().rpartition("/")[2].removesuffix(".jpg")


def check_kinds(folder, module, web, on_web=ON_WEB, **flags):
    images = list(IMAGES)
    for index, data in DAMAGED.items():
        images[index] = data
    found = {}
    for kind in KINDS:
        source = write_inputs(folder / kind, images, kind)
        out = folder / f"{kind}.out"
        named = {"input_format": "csv"} if kind == "csv" else {}
        embed(source / "*.csv" if named else source, out, module, key_feature=KEYS.get(kind), **named, **flags)
        assert complete(out)
        found[kind] = outcome(out)
    addresses = [web.serve(f"/{name}.jpg", reply(image)) for name, image in zip(NAMES, images, strict=True)]
    for kind in on_web:
        source, out = write_addresses(folder / kind, addresses, kind), folder / f"{kind}.out"
        form = kind.partition(" ")[0]
        named = {} if form == "list" else {"key_feature": "id", "image_feature": "url"}
        embed(source / f"*.{form}", out, module, input_format=form, allow_private_addresses=True, **named, **flags)
        assert complete(out)
        found[kind] = outcome(out)
    vectors, failures = found["images"]
    assert len(set(vectors.values())) == PHOTOS - len(DAMAGED)
    assert failures == {"003": "truncated", "008": "empty", "017": "not_an_image"}
    for kind in found:
        assert found[kind] == (vectors, failures), kind


def test_one_worker(tmp_path, tiny_module, web, monkeypatch):
    monkeypatch.setattr("pipeline.beam.read.PART_BYTES", 4000)
    for kind in (parquet_files.ParquetFiles, csv_files.CsvFiles, image_files.ImageFiles):
        monkeypatch.setattr(kind, "part_bytes", 0)
    monkeypatch.setattr(tar.TarReader.boundary_before, "__defaults__", (100,))
    check_kinds(tmp_path, tiny_module, web)


@pytest.mark.slow
def test_three_workers(tmp_path, tiny_module, web):
    check_kinds(tmp_path, tiny_module, web, ON_WEB[:1], direct_running_mode="multi_processing", direct_num_workers=3)


class TestWebDataset:
    def test_keys_passthrough_and_retries(self, tmp_path, tiny_module):
        pairs = [
            [(f"d/{n}.jpg", image), (f"d/{n}.cls", b"%d" % i)]
            for i, (n, image) in enumerate(zip(NAMES, IMAGES, strict=True))
        ]
        good = make_tar(itertools.chain.from_iterable(pairs))
        bad = bytearray(good)
        offset = good.index(b"d/004.jpg")
        bad[offset : offset + 40] = bytes(range(1, 41))
        path, out = tmp_path / "a.tar", tmp_path / "out"
        path.write_bytes(bad)
        stat = path.stat()
        summary = embed(path, out, tiny_module, passthrough="cls")
        assert (summary.embedded, summary.failures_by_reason) == (19, {"corrupt_record": 1, "missing_feature": 1})
        rows = read_rows(out)
        assert rows[b"a.tar/d/003"]["cls"] == [3]
        failures = {failure.reason: failure for failure in read_failures(str(out))}
        assert failures["corrupt_record"].source.startswith(f"{path}@{offset}-")
        show_failure(str(out), failures["corrupt_record"].key.decode(), str(tmp_path / "shown"))
        assert (tmp_path / "shown").read_bytes() == bytes(bad[offset : offset + len((tmp_path / "shown").read_bytes())])
        path.write_bytes(good)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert embed(path, out, tiny_module, passthrough="cls").records == 0
        again = embed(path, out, tiny_module, passthrough="cls", retry_failed=True)
        assert (again.records, again.embedded, again.skipped) == (1, 1, 19)
        assert sorted(read_rows(out)) == [f"a.tar/d/{name}".encode() for name in NAMES]
        assert list(read_failures(str(out))) == []
        assert complete(out)

    def test_samples_that_are_gone_leave_the_data_set(self, tmp_path, tiny_module):
        path, out = tmp_path / "a.tar", tmp_path / "out"
        path.write_bytes(make_tar((f"{name}.jpg", image) for name, image in zip(NAMES[:4], IMAGES, strict=False)))
        embed(path, out, tiny_module)
        path.write_bytes(make_tar((f"{name}.jpg", image) for name, image in zip(NAMES[2:6], IMAGES, strict=False)))
        assert embed(path, out, tiny_module).embedded == 4
        assert sorted(read_rows(out)) == [f"a.tar/{name}".encode() for name in NAMES[2:6]]


class TestParquet:
    def test_columns_keep_their_types(self, tmp_path, tiny_module):
        source = write_inputs(tmp_path / "in", IMAGES, "parquet")
        out = tmp_path / "out"
        embed(source, out, tiny_module, passthrough="*", output_format="parquet")
        frame = pandas.read_parquet(out / "embeddings").sort_values("n")
        assert frame["n"].dtype == "int16"
        assert frame["id"].tolist() == NAMES
        assert frame["key"].iloc[4] == "1.parquet@1"

    def test_a_tfrecord_holds_them_as_lists(self, tmp_path, tiny_module):
        source = write_inputs(tmp_path / "in", IMAGES, "parquet")
        embed(source, tmp_path / "out", tiny_module, passthrough="id,n", key_feature="id")
        row = read_rows(tmp_path / "out")[b"007"]
        assert (row["id"], row["n"]) == ([b"007"], [7])

    def test_rows_are_tried_again_alone(self, tmp_path, tiny_module):
        images = [image if index != 5 else b"bad" for index, image in enumerate(IMAGES)]
        source, out = write_inputs(tmp_path / "in", images, "parquet"), tmp_path / "out"
        embed(source, out, tiny_module)
        (failure,) = read_failures(str(out))
        assert failure.source == f"{source}/2.parquet@1"
        show_failure(str(out), failure.key.decode(), str(tmp_path / "shown"))
        assert (tmp_path / "shown").read_bytes() == b"bad"
        again = embed(source, out, tiny_module, retry_failed=True)
        assert (again.records, again.failed, again.skipped) == (1, 1, 19)


class TestImageFeature:
    """TFRecords whose image is in another feature than the default."""

    @pytest.fixture
    def records(self, tmp_path):
        path = tmp_path / "a.tfrecord"
        path.write_bytes(make_tfrecord(make_example({"image": i, "file_name": "x", "label": 1}) for i in IMAGES))
        return path

    def test_the_run_is_refused_and_says_the_name(self, records, tmp_path, tiny_module):
        text = f"^{records} has file_name, image, label, but no image/encoded; say --image_feature=image$"
        with pytest.raises(InputError, match=text):
            embed(records, tmp_path / "out", tiny_module)
        assert not (tmp_path / "out").exists()
        assert embed(records, tmp_path / "out", tiny_module, image_feature="image").embedded == PHOTOS

    def test_another_name_reads_again(self, records, tmp_path, tiny_module):
        out = tmp_path / "out"
        assert embed(records, out, tiny_module, image_feature="file_name").failed == PHOTOS
        again = embed(records, out, tiny_module, image_feature="image")
        assert (again.embedded, again.skipped) == (PHOTOS, 0)
        assert embed(records, out, tiny_module, image_feature="image").skipped == PHOTOS
        assert list(read_failures(str(out))) == []

    def test_a_second_run_that_has_nothing_to_do_fails_like_the_first(self, records, tmp_path, tiny_module):
        out = tmp_path / "out"
        flags = {"image_feature": "file_name", "max_failure_rate": 1.0}
        text = rf"^none of {PHOTOS} records could be embedded \({PHOTOS} not_an_image\)"
        with pytest.raises(TooManyFailures, match=f"{text}; see"):
            embed(records, out, tiny_module, **flags)
        with pytest.raises(TooManyFailures, match=f"{text} by earlier runs; .* try them again with --retry_failed$"):
            embed(records, out, tiny_module, **flags)

    def test_a_table_without_images_beside_images_is_left_out(self, tmp_path, tiny_module, caplog):
        source = write_inputs(tmp_path / "in", IMAGES, "images")
        pq.write_table(pa.table({"file": NAMES, "n": range(PHOTOS)}), source / "labels.parquet")
        assert embed(source, tmp_path / "out", tiny_module).records == PHOTOS
        text = f"left out 1 files of --input_format=parquet: {source}/labels.parquet has file, n, none of which holds"
        assert any(message.startswith(text) for message in caplog.messages)
        with pytest.raises(InputError, match=f"^{source}/labels.parquet has file, n"):
            embed([source, source / "labels.parquet"], tmp_path / "other", tiny_module)
