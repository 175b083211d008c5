import gzip
import io
import tracemalloc
import zlib

import pytest

from pipeline.tfrecords import byte_window
from pipeline.tfrecords.framing import frame, looks_like_tfrecord
from pipeline.tfrecords.gzip_stream import GzipStream
from pipeline.tfrecords.tfrecord import (
    CorruptRange,
    OversizedRecord,
    Record,
    read_records,
    read_records_sequential,
)
from tests.tfrecords.damage import (
    END,
    THREE,
    A,
    B,
    C,
    extent,
    flip,
    framed,
    header,
    payloads_of,
    random_bytes,
    read,
    read_gzip,
    read_in_ranges,
    read_stream,
)

# The file that tf.io.TFRecordWriter makes of the records b"", b"abc".
GOLDEN = bytes.fromhex("0000000000000000 29039807 d8ea82a2 0300000000000000 b099490e 616263 6e57f121")
LARGE = 300_000  # more than the reader takes from the file at once

# Undamaged files


def test_golden_file_is_written_byte_for_byte() -> None:
    assert frame(b"") + frame(b"abc") == GOLDEN


def test_golden_file_is_read() -> None:
    assert read(GOLDEN) == [Record(0, b""), Record(16, b"abc")] == read_stream(GOLDEN)


def test_tensorflow_reads_and_writes_the_same_files(tmp_path) -> None:
    import tensorflow as tf

    payloads = [b"", b"abc", random_bytes(100_000)]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(framed(payloads))
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for payload in payloads:
            writer.write(payload)
    assert theirs.read_bytes() == ours.read_bytes()
    assert list(tf.data.TFRecordDataset(str(ours)).as_numpy_iterator()) == payloads


def test_empty_file_has_no_records() -> None:
    assert read(b"") == read_stream(b"") == read_gzip(gzip.compress(b"")) == []


def test_empty_range_has_no_records() -> None:
    assert read(GOLDEN, 0, 0) == read(GOLDEN, 5, 5) == read(flip(GOLDEN, 0), 0, 0) == []


@pytest.mark.parametrize("start", [len(GOLDEN) - 1, len(GOLDEN), len(GOLDEN) + 1000])
def test_range_after_the_last_record_has_no_records(start: int) -> None:
    assert read(GOLDEN, start) == []


@pytest.mark.parametrize("look_back_bytes", [0, 1000])
def test_every_pair_of_ranges_splits_the_file(look_back_bytes: int) -> None:
    for cut in range(len(GOLDEN) + 1):
        assert read_in_ranges(GOLDEN, [cut], look_back_bytes=look_back_bytes) == read(GOLDEN)


@pytest.mark.parametrize("size", [1000, 40_000, LARGE, 2_000_000])
def test_records_of_any_size_are_read_whole_and_in_ranges(size: int) -> None:
    payloads = [random_bytes(size + i, seed=i) for i in range(max(3, 1_000_000 // size))]
    data = framed(payloads)
    assert payloads_of(read(data)) == payloads_of(read_stream(data)) == payloads
    assert read_in_ranges(data, list(range(1, len(data), 100_000)), look_back_bytes=0) == read(data)


def test_records_around_the_sizes_at_which_reading_changes() -> None:
    sizes = [size + delta for size in (1 << 15, 1 << 18) for delta in range(-20, 21)]
    payloads = [random_bytes(size, seed=size) for size in sizes]
    assert payloads_of(read(framed(payloads))) == payloads == payloads_of(read_stream(framed(payloads)))


def test_large_record_that_ends_where_a_read_ends() -> None:
    for size in range(byte_window.CHUNK_BYTES - 40, byte_window.CHUNK_BYTES + 10):
        payloads = [random_bytes(size), b"next"]
        assert payloads_of(read(framed(payloads))) == payloads == payloads_of(read_stream(framed(payloads)))


def test_stopping_early_reads_no_more_of_the_file() -> None:
    file = io.BytesIO(framed([random_bytes(1000, seed=i) for i in range(5000)]))
    items = read_records(file)
    assert isinstance(next(items), Record)
    assert file.tell() < 1_000_000


def test_an_undamaged_range_is_read_without_going_back() -> None:
    class Forward(io.BytesIO):
        seeks = 0

        def seek(self, *args: int) -> int:
            self.seeks += 1
            return super().seek(*args)

    file = Forward(framed([random_bytes(50_000 * (i % 3), seed=i) for i in range(100)]))
    assert len(list(read_records(file))) == 100
    assert file.seeks == 2  # to the end for the size, and back


def test_a_file_that_returns_few_bytes_at_a_time_is_read_whole() -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(7 if size is None or size < 0 else size, 999))

    data = framed([random_bytes(size) for size in (0, 10, 5000, LARGE, 3)])
    assert list(read_records(Trickle(data))) == read(data)
    assert list(read_records_sequential(Trickle(data))) == read(data)


def test_beam_file_objects_are_read(tmp_path) -> None:
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    path = tmp_path / "records"
    path.write_bytes(framed([b"one", random_bytes(LARGE), b"three"]))
    with FileSystems.open(str(path), compression_type=CompressionTypes.UNCOMPRESSED) as file:
        assert payloads_of(list(read_records(file, 5))) == [random_bytes(LARGE), b"three"]


@pytest.mark.parametrize("limit", [0, -1, 1 << 32])
def test_limit_out_of_range_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"max_record_bytes is {limit}, expected 1 to 4294967295"):
        read(GOLDEN, max_record_bytes=limit)


def test_looks_like_tfrecord() -> None:
    assert looks_like_tfrecord(GOLDEN)
    assert looks_like_tfrecord(GOLDEN[:12])
    assert not looks_like_tfrecord(GOLDEN[:11])
    assert not looks_like_tfrecord(flip(GOLDEN, 3))
    assert not looks_like_tfrecord(b"")
    assert not looks_like_tfrecord(b"\xff\xd8\xff\xe0 not a record")


# Damage, case by case


@pytest.mark.parametrize("reader", [read, read_stream])
class TestOneDamage:
    def test_length_checksum(self, reader) -> None:
        assert reader(flip(framed(THREE), B + 8)) == [
            Record(A, THREE[0]),
            CorruptRange(B, C, "the checksum of the record's length does not match"),
            Record(C, THREE[2]),
        ]

    def test_data(self, reader) -> None:
        assert reader(flip(framed(THREE), B + 15)) == [
            Record(A, THREE[0]),
            CorruptRange(B, C, "the checksum of the record's 10 bytes does not match"),
            Record(C, THREE[2]),
        ]

    def test_first_record(self, reader) -> None:
        items = reader(flip(framed(THREE), A))
        assert [extent(item) for item in items] == [(A, B), (B, C), (C, END)]
        assert payloads_of(items) == THREE[1:]

    def test_last_record(self, reader) -> None:
        items = reader(flip(framed(THREE), END - 1))
        assert items[2:] == [CorruptRange(C, END, "the checksum of the record's 5 bytes does not match")]

    def test_two_records_are_one_range(self, reader) -> None:
        items = reader(flip(framed(THREE), B - 1, 2))
        assert [extent(item) for item in items] == [(A, C), (C, END)]

    def test_two_places_are_two_ranges(self, reader) -> None:
        items = reader(flip(flip(framed(THREE), A), C))
        assert [extent(item) for item in items] == [(A, B), (B, C), (C, END)]
        assert payloads_of(items) == [THREE[1]]

    def test_garbage_after_the_last_record(self, reader) -> None:
        message = "the checksum of the record's length does not match"
        assert reader(framed(THREE) + b"x" * 100)[3:] == [CorruptRange(END, END + 100, message)]

    def test_few_bytes_after_the_last_record(self, reader) -> None:
        message = "the file ends 5 bytes after the start of a record"
        assert reader(framed(THREE) + b"12345")[3:] == [CorruptRange(END, END + 5, message)]

    def test_inserted_bytes(self, reader) -> None:
        data = framed(THREE)
        items = reader(data[:B] + b"inserted" + data[B:])
        assert [extent(item) for item in items] == [(A, B), (B, B + 8), (B + 8, C + 8), (C + 8, END + 8)]

    def test_missing_bytes(self, reader) -> None:
        data = framed(THREE)
        items = reader(data[: B + 14] + data[B + 17 :])
        assert [extent(item) for item in items] == [(A, B), (B, C - 3), (C - 3, END - 3)]

    def test_claim_beyond_the_end_of_the_file(self, reader) -> None:
        data = frame(b"first") + header(1000) + framed([b"second"])
        message = "the record claims 1000 bytes, but the file ends 34 bytes after its start"
        assert reader(data) == [Record(0, b"first"), CorruptRange(21, 33, message), Record(33, b"second")]

    @pytest.mark.parametrize("power", range(10, 19))
    def test_record_after_any_number_of_damaged_bytes(self, reader, power: int) -> None:
        for count in range((1 << power) - 20, (1 << power) + 20):
            data = random_bytes(count) + frame(b"found")
            assert [extent(item) for item in reader(data)] == [(0, count), (count, len(data))]

    def test_nothing_but_garbage(self, reader) -> None:
        for data in (random_bytes(1_000_000), bytes(1_000_000), b"text " * 100_000):
            (item,) = reader(data)
            assert extent(item) == (0, len(data))

    def test_large_record(self, reader) -> None:
        payloads = [random_bytes(size, seed=size) for size in (LARGE, 700_000, LARGE + 1)]
        data = framed(payloads)
        for position in (LARGE + 16, LARGE + 17 + 12, LARGE + 600_000, LARGE + 16 + 700_015):
            items = reader(flip(data, position))
            assert payloads_of(items) == [payloads[0], payloads[2]]
            assert len(items) == 3

    @pytest.mark.parametrize("size", [40_000, LARGE])
    def test_truncated_large_record(self, reader, size: int) -> None:
        payloads = [random_bytes(size, seed=i) for i in range(2)]
        for cut in (1, 4, 5, size, size + 3, size + 4, size + 15):
            items = reader(framed(payloads)[:-cut])
            assert payloads_of(items) == payloads[:1]
            assert extent(items[1]) == (size + 16, 2 * (size + 16) - cut)

    def test_truncated_at_every_byte(self, reader) -> None:
        data = framed(THREE)
        for size in range(END + 1):
            items = reader(data[:size])
            whole = sum(stop <= size for stop in (B, C, END))
            assert payloads_of(items) == THREE[:whole]
            assert [extent(item) for item in items[whole:]] == [
                (start, size) for start, stop in ((A, B), (B, C), (C, END)) if start < size < stop
            ]

    def test_records_of_zero_bytes_beside_damage(self, reader) -> None:
        data = framed([b""] * 5)
        items = reader(flip(data, 32))
        assert [extent(item) for item in items] == [(i, i + 16) for i in range(0, 80, 16)]
        assert len(payloads_of(items)) == 4


def test_damage_belongs_to_the_range_of_the_record_before_it() -> None:
    data = flip(framed(THREE), B + 8)
    whole = read(data)
    for cut in range(1, END):
        ranges = [read(data, 0, cut, look_back_bytes=0), read(data, cut, None, look_back_bytes=0)]
        assert ranges == ([whole, []] if cut > C else [whole[:2], whole[2:]])


def test_damage_at_the_start_belongs_to_the_first_range() -> None:
    data = flip(framed(THREE), 0)
    assert [extent(item) for item in read(data, 0, 1)] == [(0, B)]
    assert payloads_of(read(data, 1, None)) == THREE[1:]


# Oversized records and hostile headers


def test_oversized_record_is_skipped() -> None:
    data = framed([b"first", random_bytes(1000), b"last"])
    expected = [Record(0, b"first"), OversizedRecord(21, 1000), Record(1037, b"last")]
    assert read(data, max_record_bytes=999) == read_stream(data, max_record_bytes=999) == expected
    assert OversizedRecord(21, 1000).stop == 1037
    assert len(payloads_of(read(data, max_record_bytes=1000))) == 3


def test_oversized_record_at_the_end() -> None:
    data = framed([b"first", random_bytes(LARGE)])
    expected = [Record(0, b"first"), OversizedRecord(21, LARGE)]
    assert read(data, max_record_bytes=10) == read_stream(data, max_record_bytes=10) == expected


def test_oversized_record_is_reported_by_one_range() -> None:
    data = framed([b"first", random_bytes(5000), b"last"])
    expected = read(data, max_record_bytes=100)
    for cut in range(0, len(data), 7):
        assert read_in_ranges(data, [cut], max_record_bytes=100, look_back_bytes=116) == expected


def test_oversized_record_is_not_read() -> None:
    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.count += len(data)
            return data

    file = Counting(framed([b"first", bytes(20_000_000), b"last"]))
    assert len(list(read_records(file, max_record_bytes=1000))) == 3
    assert file.count < 2_000_000


@pytest.mark.parametrize("reader", [read, read_stream])
def test_false_claim_over_the_limit_costs_itself_only(reader) -> None:
    data = frame(b"first") + header(2000) + framed([bytes([i]) * 50 for i in range(50)])
    items = reader(data, max_record_bytes=1000)
    message = "the record claims 2000 bytes, over the limit of 1000"
    assert items[1] == CorruptRange(21, 33, message)
    assert len(payloads_of(items)) == 51


@pytest.mark.parametrize("limit", [1 << 20, (1 << 32) - 1])
@pytest.mark.parametrize("compressed", [False, True])
def test_claim_of_2_gib_allocates_little(compressed: bool, limit: int) -> None:
    data = frame(b"first") + header(2 << 30) + frame(b"second")
    file = GzipStream(io.BytesIO(gzip.compress(data))) if compressed else io.BytesIO(data)
    tracemalloc.start()
    items = list((read_records_sequential if compressed else read_records)(file, max_record_bytes=limit))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert payloads_of(items) == [b"first", b"second"]
    assert peak_bytes < 8 << 20


@pytest.mark.parametrize("between", [b"", frame(b"")])
def test_many_false_headers_cost_no_more_than_their_number(monkeypatch, between: bytes) -> None:
    checked_bytes = 0

    def counted(function):
        def count(*args):
            nonlocal checked_bytes
            checked_bytes += len(args[-1])
            return function(*args)

        return count

    for name in ("crc32c", "extend_crc32c"):
        monkeypatch.setattr(byte_window, name, counted(getattr(byte_window, name)))
    data = (between + header(2_000_000)) * 1000 + random_bytes(2_500_000)
    items = read(data, max_record_bytes=4_000_000)
    assert len(payloads_of(items)) == (1000 if between else 0)
    assert checked_bytes < 200_000_000  # 2000 million if each claim were followed


def test_framed_records_inside_a_record_are_its_data() -> None:
    inner = framed([b"inner %d" % i for i in range(20)])
    payloads = [b"first", inner, b"between", inner + b"tail", b"last"]
    data = framed(payloads)
    for cut in range(len(data)):
        assert payloads_of(read_in_ranges(data, [cut], look_back_bytes=len(inner) + 100)) == payloads


def test_framed_records_inside_a_record_with_damaged_data_are_not_read() -> None:
    inner = framed([b"inner %d" % i for i in range(20)])
    data = framed([b"first", inner + b"tail", b"last"])
    for position in range(21 + 12, 21 + 12 + len(inner)):
        assert payloads_of(read(flip(data, position))) == [b"first", b"last"]


# Compressed files


def test_gzip_is_read() -> None:
    assert read_gzip(gzip.compress(framed(THREE))) == read(framed(THREE))


def test_gzip_heals_inside() -> None:
    data = flip(framed(THREE), B + 8)
    assert read_gzip(gzip.compress(data)) == read(data)


def test_gzip_truncated_at_every_byte_keeps_all_before() -> None:
    data = framed(THREE)
    compressed = gzip.compress(data)
    for size in range(len(compressed)):
        decompressor = zlib.decompressobj(31)
        left = decompressor.decompress(compressed[:size]) + decompressor.flush()
        *records, last = read_gzip(compressed[:size])
        assert payloads_of(records) == payloads_of(read(left)) == [item.data for item in records]
        assert isinstance(last, CorruptRange)
        assert last.stop == len(left)
        assert last.message.endswith("decompression failed: the gzip stream ends early")


def test_gzip_broken_between_records_is_reported() -> None:
    compressed = gzip.compress(framed(THREE))
    message = "decompression failed: Error -3 while decompressing data: incorrect data check"
    assert read_gzip(flip(compressed, len(compressed) - 8))[3:] == [CorruptRange(END, END, message)]


def test_gzip_damaged_far_inside_keeps_all_before() -> None:
    payloads = [random_bytes(500, seed=i).hex().encode() for i in range(2000)]
    compressed = gzip.compress(framed(payloads))
    middle = len(compressed) // 2
    items = read_gzip(compressed[:middle] + b"\xff" * 300 + compressed[middle + 300 :])
    assert payloads_of(items)[:950] == payloads[:950]
    assert set(payloads_of(items)) <= set(payloads)
    assert isinstance(items[-1], CorruptRange)
    assert "decompression failed: Error -3" in items[-1].message


def test_not_a_gzip_file_is_one_range() -> None:
    (item,) = read_gzip(b"not a gzip file")
    message = "decompression failed: Error -3 while decompressing data: incorrect header check"
    assert item == CorruptRange(0, 0, message)


def test_oversized_record_at_a_broken_end_names_the_break() -> None:
    compressed = gzip.compress(frame(bytes(1000)))
    stream = GzipStream(io.BytesIO(compressed[:-8]))
    (item,) = read_records_sequential(stream, max_record_bytes=100)
    assert isinstance(item, CorruptRange)
    assert item.message == (
        "the record claims 1000 bytes, over the limit of 100; decompression failed: the gzip stream ends early"
    )


@pytest.mark.parametrize("reading", ["range", "stream"])
def test_an_error_of_the_file_system_is_raised(reading: str) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    file = Broken(GOLDEN)
    with pytest.raises(OSError, match="Input/output error"):
        list(read_records(file) if reading == "range" else read_records_sequential(file))
