"""Properties of the TFRecord reader: it finds each undamaged record once, whatever the damage and the ranges."""

import gzip
import io
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from pipeline.tfrecords.framing import frame
from pipeline.tfrecords.tfrecord import CorruptRange, Item, OversizedRecord, Record, read_records
from tests.tfrecords.damage import extent, framed, header, payloads_of, read, read_gzip, read_in_ranges, read_stream


@dataclass(frozen=True)
class Damaged:
    """A file after damage.

    Attributes:
      payloads: data of the records as written.
      data: the file after the damage.
      undamaged: offset in `data` and data of the records that lost none of their bytes.
      ambiguous: a record lost exactly the length of the undamaged records after it; its header claims their bytes.
    """

    payloads: list[bytes]
    data: bytes
    undamaged: list[Record]
    ambiguous: bool

    def __repr__(self) -> str:
        """Sizes only: megabytes of random bytes would hide what went wrong."""
        sizes = [len(payload) for payload in self.payloads]
        return f"Damaged({sizes}, {len(self.data)} bytes, undamaged at {[item.offset for item in self.undamaged]})"


SIZES = st.sampled_from([0, 0, 1, 3, 16, 50, 200, 1000, 33_000, 270_000])
# The kind; the place, as a part of the file; the number of bytes.
DAMAGES = st.tuples(
    st.sampled_from(["overwrite", "overwrite", "delete", "insert", "truncate"]),
    st.floats(0, 1),
    st.one_of(st.integers(1, 40), st.integers(1, 3000)),
)


def starts_of(payloads: list[bytes]) -> list[int]:
    return [0, *itertools.accumulate(16 + len(payload) for payload in payloads)][: len(payloads)]


def positions(origin: np.ndarray, wanted: list[int]) -> list[int | None]:
    """Returns the present offset of the bytes at some former offsets; None for a byte that is gone."""
    kept = np.flatnonzero(origin >= 0)
    before = origin[kept]  # rises, as damage moves nothing past anything
    found = np.searchsorted(before, wanted)
    return [
        int(kept[index]) if index < len(kept) and before[index] == was else None
        for index, was in zip(found, wanted, strict=True)
    ]


@st.composite
def damaged_files(draw: st.DrawFn) -> Damaged:
    sizes = draw(st.lists(SIZES, max_size=12))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    payloads = [rng.bytes(size) for size in sizes]
    data = np.frombuffer(framed(payloads), np.uint8)
    origin = np.arange(len(data))  # where each byte was before; -1 for foreign ones
    for kind, part, count in draw(st.lists(DAMAGES, max_size=4)):
        start = int(part * len(data))
        stop = min(start + count, len(data))
        if kind == "truncate":
            stop = len(data)
        if kind == "overwrite":
            foreign = data[start:stop] ^ rng.integers(1, 256, stop - start, np.uint8)
        else:
            foreign = rng.integers(0, 256, count if kind == "insert" else 0, np.uint8)
            stop = start if kind == "insert" else stop
        data = np.concatenate([data[:start], foreign, data[stop:]])
        origin = np.concatenate([origin[:start], np.full(len(foreign), -1), origin[stop:]])

    position_of = dict(zip(starts_of(payloads), positions(origin, starts_of(payloads)), strict=True))
    undamaged, with_header = [], []
    written = 0
    for payload in payloads:
        now, size = position_of.get(written), 16 + len(payload)
        if now is not None and np.array_equal(origin[now : now + size], np.arange(written, written + size)):
            undamaged.append(Record(now, payload))
        elif now is not None and np.array_equal(origin[now : now + 12], np.arange(written, written + 12)):
            with_header.append((now, now + size))
        written += size
    starts = {record.offset for record in undamaged}
    ambiguous = any(
        (end in starts or end == len(data)) and any(now < start < end for start in starts) for now, end in with_header
    )
    return Damaged(payloads, data.tobytes(), undamaged, ambiguous)


FEW = settings(deadline=None, max_examples=150)


@FEW
@given(damaged_files(), st.lists(st.floats(0, 1), max_size=6), st.sampled_from([0, 20, 1000, 1 << 22]))
def test_every_undamaged_record_is_read_once_whatever_the_ranges(
    file: Damaged, parts: list[float], look_back_bytes: int
) -> None:
    assume(not file.ambiguous)
    whole = read(file.data)
    records = [item for item in whole if isinstance(item, Record)]
    assert len(set(map(extent, records))) == len(records)
    assert set(file.undamaged) <= set(records)
    assert set(payloads_of(whole)) <= set(file.payloads)
    cuts = [int(part * len(file.data)) for part in parts]
    assert read_in_ranges(file.data, cuts, look_back_bytes=look_back_bytes) == whole


@FEW
@given(damaged_files())
def test_the_items_tile_the_file(file: Damaged) -> None:
    edges = [extent(item) for item in read(file.data)]
    assert [start for start, _ in edges] == [0, *(stop for _, stop in edges)][: len(edges)]
    assert (edges[-1][1] if edges else 0) == len(file.data)


@FEW
@given(damaged_files())
def test_a_stream_holds_the_items_of_the_file(file: Damaged) -> None:
    assert read_stream(file.data) == read(file.data)


@FEW
@given(damaged_files(), st.integers(1, 2000))
def test_a_limit_hides_the_longer_records_only(file: Damaged, limit: int) -> None:
    assume(not file.ambiguous)
    items = read(file.data, max_record_bytes=limit)
    expected = {record for record in file.undamaged if len(record.data) <= limit}
    assert expected <= {item for item in items if isinstance(item, Record)}
    assert all(len(payload) <= limit for payload in payloads_of(items))
    assert all(item.length > limit for item in items if isinstance(item, OversizedRecord))


def read_while_splitting(data: bytes, rng: random.Random, look_back_bytes: int) -> Iterator[Item]:
    """Reads as a splittable DoFn does whose range is split again and again while it is read."""
    start, stop = 0, len(data)
    while start < len(data):
        last_claimed = -1
        for item in read_records(io.BytesIO(data), start, stop, look_back_bytes=look_back_bytes):
            claim = item.offset if isinstance(item, Record) else 0 if extent(item)[0] == 0 else None
            if claim is not None:
                if claim >= stop:
                    break
                last_claimed = claim
            yield item
            if rng.random() < 0.5 and last_claimed + 1 < stop:
                stop = rng.randint(last_claimed + 1, stop)
        start, stop = stop, len(data)


@FEW
@given(damaged_files(), st.integers(0, 1000), st.sampled_from([0, 1 << 22]))
def test_ranges_that_shrink_while_they_are_read_lose_and_repeat_nothing(
    file: Damaged, seed: int, look_back_bytes: int
) -> None:
    assume(not file.ambiguous)
    assert list(read_while_splitting(file.data, random.Random(seed), look_back_bytes)) == read(file.data)


@FEW
@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_can_be_read(data: bytes, start: int) -> None:
    for items in (read(data, start, look_back_bytes=0), read_stream(data), read_gzip(data)):
        assert all(isinstance(item, Record | CorruptRange | OversizedRecord) for item in items)


@FEW
@given(st.data())
def test_nested_and_hostile_headers_never_break_the_reader(draw: st.DataObject) -> None:
    pieces = st.one_of(
        st.binary(max_size=30),
        st.binary(max_size=30).map(frame),
        st.lists(st.binary(max_size=5), max_size=3).map(framed).map(frame),
        st.integers(0, 200).map(header),
        st.integers(1 << 31, (1 << 64) - 1).map(header),
    )
    data = b"".join(draw.draw(st.lists(pieces, max_size=20)))
    whole = read(data, max_record_bytes=100)
    edges = [extent(item) for item in whole]
    assert [start for start, _ in edges] == [0, *(stop for _, stop in edges)][: len(edges)]
    assert (edges[-1][1] if edges else 0) == len(data)
    assert read_gzip(gzip.compress(data)) == read_stream(data)


@pytest.mark.slow
def test_large_file_with_many_damaged_ranges() -> None:
    rng = np.random.default_rng(1)
    payloads = [rng.bytes(int(size)) for size in rng.integers(0, 60_000, 1500)]
    clean = framed(payloads)
    data = np.frombuffer(clean, np.uint8).copy()
    for start in rng.integers(0, len(data), 200):
        stop = start + rng.integers(1, 10_000)
        data[start:stop] ^= rng.integers(1, 256, len(data[start:stop]), np.uint8)
    same = np.concatenate([[0], np.cumsum(data != np.frombuffer(clean, np.uint8))])
    undamaged, offset = [], 0
    for payload in payloads:
        if same[offset] == same[offset + 16 + len(payload)]:
            undamaged.append(Record(offset, payload))
        offset += 16 + len(payload)
    whole = read(data.tobytes())
    assert [item for item in whole if isinstance(item, Record)] == undamaged
    cuts = [int(cut) for cut in rng.integers(0, len(data), 30)]
    assert read_in_ranges(data.tobytes(), cuts, look_back_bytes=100_000) == whole
