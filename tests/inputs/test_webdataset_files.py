import gzip
import io
import json
import os
import tarfile

import pytest

from pipeline.core.failures import Failure
from pipeline.core.records import Feature, ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.inputs import tar
from pipeline.inputs.base import NO_END, ReadSettings
from pipeline.inputs.compressed import START_BYTES
from pipeline.inputs.tasks import find_kind
from pipeline.storage import filesystem
from tests.inputs.archives import make_tar
from tests.inputs.reading import breaking, check_split, make_task, read_between

SAMPLES = 6
MEMBERS = [
    (name, data)
    for index in range(SAMPLES)
    for name, data in (
        (f"{'long-' * 30 if index == 3 else 'd'}/{index}.jpg", bytes([index]) * (900 * index + 1)),
        (f"{'long-' * 30 if index == 3 else 'd'}/{index}.json", json.dumps({"id": f"x{index}", "n": index}).encode()),
        (f"{'long-' * 30 if index == 3 else 'd'}/{index}.cls", f"{index}\n".encode()),
    )
]
IMAGES = [data for name, data in MEMBERS if name.endswith(".jpg")]


@pytest.fixture(autouse=True)
def _look_back_a_little(monkeypatch):
    """Otherwise each part of a small archive would read it from its start."""
    monkeypatch.setattr(tar.TarReader.boundary_before, "__defaults__", (100,))


def write(tmp_path, data, name="a.tar", **options):
    path = tmp_path / name
    path.write_bytes(data)
    return make_task(path, "webdataset", **options)


class TestSamples:
    def test_keys_sources_and_images(self, tmp_path):
        found = read_between(write(tmp_path, make_tar(MEMBERS)))
        assert [item.key.decode() for item in found] == [
            f"a.tar/{name.removesuffix('.jpg')}" for name, _ in MEMBERS if name.endswith(".jpg")
        ]
        assert [item.image for item in found] == IMAGES
        with tarfile.open(tmp_path / "a.tar") as archive:
            offsets = [member.offset for member in archive if member.name.endswith(".jpg")]
        assert [item.source for item in found] == [f"{tmp_path}/a.tar@{offset}" for offset in offsets]
        assert all(item.features == {} for item in found)

    def test_members_and_fields_are_copied(self, tmp_path):
        names = ("cls", "json:id", "json:n", "json", "txt", "json:none")
        found = read_between(write(tmp_path, make_tar(MEMBERS)), passthrough=names)
        assert found[2].features == {
            "cls": Feature("int64", (2,)),
            "json:id": Feature("bytes", (b"x2",)),
            "json:n": Feature("int64", (2,)),
            "json": Feature("bytes", (b'{"id": "x2", "n": 2}',)),
        }
        found = read_between(write(tmp_path, make_tar(MEMBERS)), passthrough=("*",))
        assert sorted(found[2].features) == ["cls", "json"]

    @pytest.mark.parametrize(
        ("value", "feature"),
        [
            ([1, 2], Feature("int64", (1, 2))),
            ([1, 2.5], Feature("float", (1.0, 2.5))),
            (["a", "é"], Feature("bytes", (b"a", "é".encode()))),
            (True, Feature("int64", (1,))),
            ({"b": [1]}, Feature("bytes", (b'{"b": [1]}',))),
            (1 << 70, Feature("float", (float(1 << 70),))),
            (10**400, Feature("bytes", (b"1" + b"0" * 400,))),
            ("cut \ud83d", Feature("bytes", (b"cut ?",))),
            (["a", "\ud83d"], Feature("bytes", (b"a", b"?"))),
            ({"b": "\ud83d"}, Feature("bytes", (b'{"b": "\\ud83d"}',))),
            (None, None),
            ([], None),
        ],
    )
    def test_json_values(self, tmp_path, value, feature):
        data = make_tar([("a.jpg", b"x"), ("a.json", json.dumps({"v": value}).encode())])
        (found,) = read_between(write(tmp_path, data), passthrough=("json:v",))
        assert found.features == ({} if feature is None else {"json:v": feature})

    @pytest.mark.parametrize(("key", "expected"), [("json:id", b"x4"), ("json:n", b"4"), ("cls", b"4")])
    def test_keys_from_members(self, tmp_path, key, expected):
        assert read_between(write(tmp_path, make_tar(MEMBERS)), key_feature=key)[4].key == expected

    @pytest.mark.parametrize("key", ["txt", "json:none", "json:list", "json:cut"])
    def test_samples_without_a_key(self, tmp_path, key):
        data = make_tar([("a.jpg", b"x"), ("a.json", rb'{"list": [1, 2], "cut": "a\ud83d"}')])
        assert read_between(write(tmp_path, data), key_feature=key) == [
            Failure(
                b"a.tar/a",
                f"{tmp_path}/a.tar@0",
                "read",
                "missing_feature",
                f"no key: the sample has no text or integer '{key}'",
            )
        ]

    def test_blank_keys(self, tmp_path):
        """They would all be the same key."""
        members = [
            ("0.jpg", b"0"),
            ("0.txt", b"\n"),
            ("1.jpg", b"1"),
            ("1.txt", b" "),
            ("2.jpg", b"2"),
            ("2.txt", b"x"),
        ]
        *blank, good = read_between(write(tmp_path, make_tar(members)), key_feature="txt")
        assert [(item.key, item.reason, item.message) for item in blank] == [
            (f"a.tar/{index}".encode(), "missing_feature", "no key: 'txt' is blank") for index in range(2)
        ]
        assert good.key == b"x"

    def test_json_that_is_none(self, tmp_path):
        data = make_tar([("a.jpg", b"x"), ("a.json", b"{"), ("b.jpg", b"y"), ("b.json", b"[]")])
        found = read_between(write(tmp_path, data), passthrough=("json:a",))
        assert [(item.image, item.features) for item in found] == [(b"x", {}), (b"y", {})]

    def test_which_member_is_the_image(self, tmp_path):
        data = make_tar([("a.PNG", b"x"), ("a.seg.png", b"s"), ("b.jpeg", b"y"), ("b.seg.png", b"t")])
        assert [item.image for item in read_between(write(tmp_path, data))] == [b"x", b"y"]
        found = read_between(write(tmp_path, data), image_feature="seg.png")
        assert [item.image for item in found] == [b"s", b"t"]

    def test_samples_without_an_image_or_with_several(self, tmp_path):
        data = make_tar([("a.txt", b""), ("a.json", b"{}"), ("b.jpg", b""), ("b.png", b""), ("c.jpg", b"c")])
        none, several, good = read_between(write(tmp_path, data))
        assert (none.key, none.reason) == (b"a.tar/a", "missing_feature")
        assert none.message == (
            "no image: the sample has txt, json, none of which is an image by its extension; say --image_feature=txt"
        )
        assert several.message == (
            "no image: the sample has jpg, png, of which several are images; say --image_feature=jpg"
        )
        assert good.image == b"c"

    def test_names_that_are_no_samples(self, tmp_path):
        names = ["README", "._a.jpg", "__MACOSX/._a.jpg", ".hidden/b.jpg", "./a.jpg", "./d/../b.jpg"]
        data = make_tar([(name, b"x") for name in names])
        assert [item.key for item in read_between(write(tmp_path, data))] == [b"a.tar/a", b"a.tar/b"]

    def test_links(self, tmp_path):
        archive = io.BytesIO(make_tar([("a.jpg", b"x")]))
        with tarfile.open(fileobj=archive, mode="a") as appended:
            info = tarfile.TarInfo("b.jpg")
            info.type, info.linkname = tarfile.LNKTYPE, "a.jpg"
            appended.addfile(info)
        good, link = read_between(write(tmp_path, archive.getvalue()))
        assert good.image == b"x"
        text = "the member b.jpg is a link to a.jpg; pack it with tar --dereference"
        assert (link.reason, link.message) == ("unsupported_format", text)

    def test_large_members(self, tmp_path):
        data = make_tar([("a.jpg", bytes(11)), ("b.jpg", bytes(10)), ("b.txt", bytes(11))])
        large, good = read_between(write(tmp_path, data), max_image_bytes=10)
        assert (large.reason, large.message) == (
            "too_large",
            "the member a.jpg has 11 bytes, more than the 10 that --max_image_bytes allows",
        )
        assert good.image == bytes(10)


class TestParts:
    def test_any_two_parts_are_the_whole(self, tmp_path):
        whole = check_split(write(tmp_path, make_tar(MEMBERS)), 211, passthrough=("json:n",))
        assert [item.image for item in whole] == IMAGES

    @pytest.mark.parametrize("first", ["a", "b"])
    def test_members_far_from_the_others_of_their_sample(self, tmp_path, first):
        large = [("a.jpg", b"x" * 40_000), ("a.json", b"{}"), ("b.jpg", b"y" * 30_000), ("b.json", b"{}")]
        members = large if first == "a" else [*large[2:], *large[:2]]
        whole = check_split(write(tmp_path, make_tar(members)), 509)
        assert [len(item.image) for item in whole] == [len(data) for name, data in members if name.endswith("jpg")]

    @pytest.mark.parametrize("seed", range(6))
    def test_any_two_parts_of_a_damaged_archive_are_the_whole(self, tmp_path, seed):
        data = bytearray(make_tar(MEMBERS))
        start = seed * len(data) // 7
        if seed % 2:
            data[start : start + 2000] = bytes(range(1, 251)) * 8
        else:
            del data[start : start + 700]
        whole = check_split(write(tmp_path, bytes(data)), 411)
        damage = [item for item in whole if isinstance(item, Failure) and item.reason == "corrupt_record"]
        assert len(damage) <= 1  # none if only data was overwritten
        assert sum(isinstance(item, ImageRecord) for item in whole) >= SAMPLES - 3

    @pytest.mark.parametrize("ranges", [((0, 1),), ((2048, 4096), (9000, 9001)), ((0, 1 << 40),)])
    def test_ranges_hold_the_samples_that_begin_in_them(self, tmp_path, ranges):
        whole = read_between(write(tmp_path, make_tar(MEMBERS)))
        expected = [
            item for item in whole if any(start <= int(item.source.split("@")[1]) < stop for start, stop in ranges)
        ]
        assert read_between(write(tmp_path, make_tar(MEMBERS), ranges=ranges)) == expected

    def test_the_rest_of_a_sample_is_no_sample(self, tmp_path):
        """A range that was damaged may begin inside a sample, whose image was embedded before."""
        data = make_tar([("a.jpg", b"x"), ("a.json", b"{}"), ("b.jpg", b"y")])
        found = read_between(write(tmp_path, data, ranges=((1024, 2048 + 512),)))
        assert [item.key for item in found] == [b"a.tar/b"]


class TestDamage:
    def test_a_damaged_header_costs_its_member(self, tmp_path):
        data = bytearray(make_tar([("a.jpg", b"a"), ("b.jpg", b"b"), ("b.txt", b"b"), ("c.jpg", b"c")]))
        data[1024:1100] = bytes(range(76))
        first, damage, rest, last = read_between(write(tmp_path, bytes(data)))
        assert (first.image, last.image) == (b"a", b"c")
        text = "no readable member in 1024 bytes: no tar header, or its checksum does not match"
        assert damage == Failure(b"a.tar@1024", f"{tmp_path}/a.tar@1024-2048", "read", "corrupt_record", text)
        assert (rest.key, rest.reason) == (b"a.tar/b", "missing_feature")

    def test_an_archive_that_ends_early(self, tmp_path):
        data = make_tar(MEMBERS)
        *good, damage = check_split(write(tmp_path, data[:-12_000]), 307)
        assert [item.image for item in good] == IMAGES[: len(good)]
        assert damage.reason == "corrupt_record"
        assert damage.source.endswith(f"-{len(data) - 12_000}")
        assert "claims" in damage.message

    def test_an_empty_file(self, tmp_path):
        assert read_between(write(tmp_path, b"")) == []

    def test_no_archive_at_all(self, tmp_path):
        (damage,) = check_split(write(tmp_path, b"nonsense" * 1000), 700)
        assert damage.source == f"{tmp_path}/a.tar@0-8000"

    def test_a_file_that_vanished(self, tmp_path):
        task = write(tmp_path, make_tar(MEMBERS))
        (tmp_path / "a.tar").unlink()
        (failure,) = read_between(task)
        assert (failure.key, failure.source, failure.reason) == (b"a.tar", f"{tmp_path}/a.tar", "read_error")

    def test_a_file_that_cannot_be_read_to_its_end(self, tmp_path, monkeypatch):
        data = make_tar([(f"{index}.jpg", bytes(100_000)) for index in range(9)])

        class Broken(io.BytesIO):
            def read(self, size=-1):
                if self.tell() + size > 300_000:
                    raise OSError(5, "Input/output error")
                return super().read(size)

        task = write(tmp_path, data)
        monkeypatch.setattr(filesystem, "open_read", lambda path: Broken(data))
        *good, failure = read_between(task)
        assert good
        size = len(make_tar([("0.jpg", bytes(100_000))])) // 512 * 512
        assert failure.reason == "read_error"
        assert failure.source.endswith(f"-{len(data)}")
        start = int(failure.source.split("@")[1].split("-")[0])
        assert start == len(good) * (512 + 100_352) < size * len(good)


class TestCompressed:
    @pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
    def test_an_archive_is_what_its_bytes_say(self, tmp_path, name):
        plain = read_between(write(tmp_path, make_tar(MEMBERS)))
        task = write(tmp_path, gzip.compress(make_tar(MEMBERS)), name)
        assert find_kind("webdataset").positions(task) == (1 if name != "a.tar" else task.files[0].size_bytes)
        found = check_split(task, 301)
        assert [item.image for item in found] == [item.image for item in plain]
        assert [item.source.partition("@")[2] for item in found] == [item.source.partition("@")[2] for item in plain]

    def test_later_parts_read_only_the_first_bytes(self, tmp_path, monkeypatch):
        """The archive is named like one that is not compressed, so it was cut into parts."""
        task = write(tmp_path, data := gzip.compress(make_tar(MEMBERS), 0))
        monkeypatch.setattr(filesystem, "open_read", lambda path: breaking(data, START_BYTES))
        assert read_between(task, len(data) // 2) == []
        (failure,) = read_between(task, 0, len(data) // 2)
        assert failure.source == f"{tmp_path}/a.tar"

    def test_plain_data_that_is_named_gz(self, tmp_path):
        found = read_between(write(tmp_path, make_tar(MEMBERS), "a.tar.gz"))
        assert [item.image for item in found] == IMAGES

    @pytest.mark.parametrize("name", ["a.tgz", "a.tar"])
    def test_ranges(self, tmp_path, name):
        data = make_tar(MEMBERS)
        whole = read_between(write(tmp_path, gzip.compress(data), name))
        offset = int(whole[2].source.partition("@")[2])
        task = write(tmp_path, gzip.compress(data), name, ranges=((offset, offset + 1),))
        assert read_between(task) == [whole[2]]

    def test_ranges_that_cannot_be_read_fail_one_by_one(self, tmp_path, monkeypatch):
        """Another try must not read the samples between them: they are done."""
        noise, size = os.urandom(20_000), 512 + 20_480
        data = gzip.compress(make_tar([(f"{index}.jpg", noise) for index in range(40)]), 0)
        ranges = ((size, size + 1), (2 * size, 35 * size), (37 * size, 38 * size), (39 * size, NO_END))
        task = write(tmp_path, data, "a.tgz", ranges=ranges)
        monkeypatch.setattr(filesystem, "open_read", lambda path: breaking(data, 600_000))
        found = read_between(task)
        assert found[0].source == f"{tmp_path}/a.tgz@{size}"
        read = sum(isinstance(item, ImageRecord) for item in found)
        assert 1 < read < 30
        spans = [f"{(read + 1) * size}-{35 * size}", f"{37 * size}-{38 * size}", f"{39 * size}"]
        assert [item.source for item in found[read:]] == [f"{tmp_path}/a.tgz@{span}" for span in spans]

    def test_an_empty_archive(self, tmp_path):
        (damage,) = read_between(write(tmp_path, b"", "a.tgz"))
        assert (damage.reason, damage.source) == ("corrupt_record", f"{tmp_path}/a.tgz@0-0")
        assert read_between(write(tmp_path, gzip.compress(make_tar([])), "a.tgz")) == []

    def test_an_archive_that_breaks_off(self, tmp_path):
        *good, damage = read_between(write(tmp_path, gzip.compress(make_tar(MEMBERS), 0)[:-9000], "a.tgz"))
        assert [item.image for item in good] == IMAGES[: len(good)]
        assert damage.reason == "corrupt_record"
        assert "gzip" in damage.message


class TestProbe:
    def describe(self, tmp_path, data, **options):
        task = write(tmp_path, data)
        kind, file = find_kind("webdataset"), task.files[0]
        settings = ReadSettings(InputConfig(("unused",), **options))
        return kind.describe_problem(file), kind.describe_mismatch(file, settings)

    def test_good_archives(self, tmp_path):
        assert self.describe(tmp_path, make_tar(MEMBERS)) == ("", "")
        assert self.describe(tmp_path, make_tar(MEMBERS), image_feature="json") == ("", "")
        assert self.describe(tmp_path, bytes(range(1, 201)) * 3 + make_tar(MEMBERS)) == ("", "")

    def test_what_is_no_archive(self, tmp_path):
        assert self.describe(tmp_path, b"")[0] == "is empty"
        assert self.describe(tmp_path, b"nonsense" * 100)[0] == "is no tar archive with files"
        assert self.describe(tmp_path, make_tar([]))[0] == "is no tar archive with files"

    def test_archives_without_the_image(self, tmp_path):
        text = "has jpg, json, cls, but no png; say --image_feature=jpg"
        assert self.describe(tmp_path, make_tar(MEMBERS), image_feature="png") == ("", text)
        text = "has img, none of which is an image by its extension; say --image_feature=img"
        assert self.describe(tmp_path, make_tar([("a.img", b"x")])) == ("", text)


def test_an_archive_in_a_store(gcs, tmp_path):
    from pipeline.core.settings import InputConfig
    from pipeline.inputs.find import find_inputs
    from pipeline.inputs.tasks import make_tasks

    gcs.write("gs://bucket/shards/a.tar", make_tar(MEMBERS))
    (task,) = make_tasks(find_inputs(InputConfig(("gs://bucket/shards",))))
    whole = check_split(task, 9001)
    assert [item.image for item in whole] == IMAGES
    assert whole[0].source == "gs://bucket/shards/a.tar@0"
