import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.tables import InputEntry
from pipeline.report.originals import read_images
from pipeline.report.thumbnails import ThumbnailMaker, fitting_side, read_thumbnails
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord
from tests.datasets import add_wave, make_batch
from tests.inputs.archives import make_tar
from tests.report.pages import write_images

IMAGES = [jpeg_bytes(seed=seed) for seed in range(4)]


def found(output, keys, **options):
    return {record.key: record.image for record in read_images(str(output), keys, **options)}


def add(tmp_path, path, keys, origin, **options):
    inputs = [InputEntry(str(path), path.name, path.stat().st_size, 1.5, len(keys), origin)]
    add_wave(tmp_path / "out", "00000", make_batch({key: [1, 0, 0] for key in keys}), inputs=inputs, **options)
    return tmp_path / "out"


def test_image_files(tmp_path):
    names = [f"{index}.jpg" for index in range(100)]
    inputs = write_images(tmp_path / "in", names)
    add_wave(tmp_path / "out", "00000", make_batch({name: [1, 0, 0] for name in names}), inputs=inputs)
    (tmp_path / "in/007.jpg").unlink()
    images = found(tmp_path / "out", [b"3.jpg", b"7.jpg", b"80.jpg", b"unknown"])
    assert images == {b"3.jpg": jpeg_bytes(seed=3), b"80.jpg": jpeg_bytes(seed=80)}
    assert len(found(tmp_path / "out", map(str.encode, names))) == 99


def test_records_by_their_offsets(tmp_path):
    path = tmp_path / "a.tfrecord"
    records = [make_example({"image/encoded": image}) for image in IMAGES]
    path.write_bytes(make_tfrecord(records))
    offsets = [len(make_tfrecord(records[:index])) for index in range(4)]
    keys = [f"a.tfrecord@{offset}".encode() for offset in offsets]
    output = add(tmp_path, path, keys, "offset")
    assert found(output, [keys[2], keys[1]], max_scanned_bytes=0) == {keys[1]: IMAGES[1], keys[2]: IMAGES[2]}
    path.unlink()
    assert found(output, keys) == {}


def test_records_by_a_feature(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(
        make_tfrecord([make_example({"image": image, "id": b"%d" % index}) for index, image in enumerate(IMAGES)])
    )
    output = add(tmp_path, path, ["0", "1", "2", "3"], "feature", key_feature="id", image_feature="image")
    assert found(output, [b"2", b"x"]) == {b"2": IMAGES[2]}
    assert found(output, [b"2"], max_scanned_bytes=path.stat().st_size - 1) == {}


def test_samples_of_an_archive(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(make_tar([(f"dir/{index}.jpg", image) for index, image in enumerate(IMAGES)]))
    keys = [f"a.tar/dir/{index}" for index in range(4)]
    assert found(add(tmp_path, path, keys, "offset"), [b"a.tar/dir/3"]) == {b"a.tar/dir/3": IMAGES[3]}


def test_rows_of_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": IMAGES}), path)
    output = add(tmp_path, path, [f"a.parquet@{row}" for row in range(4)], "offset")
    assert found(output, [b"a.parquet@2", b"a.parquet@9"]) == {b"a.parquet@2": IMAGES[2]}


@pytest.mark.parametrize(("count", "side"), [(0, 160), (10, 160), (2000, 105), (10_000, 47), (1_000_000, 32)])
def test_thumbnails_are_smaller_if_there_are_more(count, side):
    assert fitting_side(count, 8_000_000) == side


def test_thumbnails_keep_to_their_budget(tmp_path):
    names = [f"{index}.jpg" for index in range(40)]
    inputs = write_images(tmp_path / "in", names)
    add_wave(tmp_path / "out", "00000", make_batch({name: [1, 0, 0] for name in names}), inputs=inputs)
    keys = [name.encode() for name in names]
    featured = keys[-1:]
    every = read_thumbnails(str(tmp_path / "out"), keys, featured, 8_000_000, ThumbnailMaker())
    assert every.keys() == set(keys)
    few = read_thumbnails(str(tmp_path / "out"), keys, featured, 6000, ThumbnailMaker())
    assert sum(len(text) for key, text in few.items() if key not in featured) <= 6000
    assert 0 < len(few) < 40
    assert featured[0] in few
    assert len(few[featured[0]]) > len(few[keys[0]])
    assert read_thumbnails(str(tmp_path / "out"), keys, featured, 0, ThumbnailMaker()) == {}


def test_what_is_no_image_has_no_thumbnail():
    assert ThumbnailMaker()(b"no image", 32) == ""
