"""Engines that want large batches from few threads, as on an accelerator."""

import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.embedding.embedder import BatchesInFlight, Embedder
from pipeline.images.decoder import ImageDecoder
from pipeline.testing import FakeEngine, jpeg_bytes, make_record, png_bytes

SIDE = 16
DECODER = ImageDecoder(height=SIDE, width=SIDE)
IMAGES = [png_bytes(SIDE, SIDE, seed=seed) for seed in range(50)]


class Recorder(FakeEngine):
    """An engine that keeps the first pixel of each image, and counts the threads that call it at a time."""

    def __init__(self, batch_size, *, calls=1, seconds=0.0, dtype="float32"):
        super().__init__(batch_size, dtype=dtype, concurrent_calls=calls)
        self.pixels = []
        self.buffers = set()
        self.most_callers = 0
        self._callers = 0
        self._seconds = seconds
        self._lock = threading.Lock()

    def infer(self, images):
        with self._lock:
            self._callers += 1
            self.most_callers = max(self.most_callers, self._callers)
            self.pixels += [image[0, 0].tolist() for image in images]
            self.buffers.add(images.__array_interface__["data"][0])
        time.sleep(self._seconds)
        vectors = super().infer(images)
        with self._lock:
            self._callers -= 1
        return vectors


def records(count, *, bad=()):
    return [make_record(f"{i:05d}", image=b"no image" if i in bad else IMAGES[i % len(IMAGES)]) for i in range(count)]


def keys(batches):
    return [key for batch in batches for rows in batch.rows for key in rows.column("key").to_pylist()]


def vectors(batches):
    return [vector for batch in batches for rows in batch.rows for vector in rows.column("embedding").to_pylist()]


def test_an_engine_that_wants_256_uint8_images_gets_them_full_and_in_order():
    engine = Recorder(256, dtype="uint8", seconds=0.01)
    bad = {3, 300, 301, 871}
    items = records(3 * 256 + 100 + len(bad), bad=bad)
    with Embedder(engine, DECODER, threads=4) as embedder:
        batches = list(embedder.stream(items))
    assert engine.calls == [256, 256, 256, 100]
    assert engine.most_callers == 1
    good = [item for index, item in enumerate(items) if index not in bad]
    expected = [np.empty((SIDE, SIDE, 3), np.uint8) for _ in good]
    for item, pixels in zip(good, expected, strict=True):
        DECODER(item.image, out=pixels)
    assert engine.pixels == [pixels[0, 0].tolist() for pixels in expected]
    assert keys(batches) == [item.key for item in good]
    np.testing.assert_allclose(vectors(batches), [pixels.mean(axis=(0, 1)) for pixels in expected], rtol=1e-6)
    assert [failure.key for batch in batches for failure in batch.failures] == [items[i].key for i in sorted(bad)]
    # One batch is computed while the other one is filled.
    assert len(engine.buffers) <= 2


def test_memory_does_not_grow_with_the_number_of_images():
    def peak_bytes(count):
        engine = FakeEngine(256, dtype="uint8", concurrent_calls=1)
        with Embedder(engine, DECODER, threads=2) as embedder:
            tracemalloc.start()
            assert sum(batch.num_rows for batch in embedder.stream(iter_records(count))) == count
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return peak

    def iter_records(count):
        for index in range(count):
            yield make_record(f"{index:05d}", image=IMAGES[index % len(IMAGES)])

    peak_bytes(600)  # what is only made once
    # How much of what may be in flight really is depends on the threads; five times the images would take as much more.
    assert peak_bytes(6000) < 2 * peak_bytes(1200)


@given(
    count=st.integers(0, 120),
    batch_size=st.integers(1, 40),
    calls=st.integers(1, 3),
    threads=st.integers(1, 4),
    bad=st.sets(st.integers(0, 119)),
)
@settings(deadline=None, max_examples=40)
def test_every_record_comes_back_in_order(count, batch_size, calls, threads, bad):
    items = records(count, bad=bad)
    engine = Recorder(batch_size, calls=calls)
    with Embedder(engine, DECODER, threads=threads) as embedder:
        batches = list(embedder.stream(items))
    assert keys(batches) == [item.key for index, item in enumerate(items) if index not in bad]
    assert sum(len(batch.failures) for batch in batches) == sum(index < count for index in bad)
    expected = [DECODER(item.image).mean(axis=(0, 1)) for index, item in enumerate(items) if index not in bad]
    np.testing.assert_allclose(np.reshape(vectors(batches), (-1, 3)), np.reshape(expected, (-1, 3)), rtol=1e-5)
    assert engine.most_callers <= calls


def test_streams_of_several_threads_share_full_batches():
    engine = Recorder(32, seconds=0.002)
    found = {}
    with Embedder(engine, DECODER, threads=2) as embedder:

        def work(name):
            items = [make_record(f"{name}-{i}", image=IMAGES[i % len(IMAGES)]) for i in range(160)]
            found[name] = (keys(embedder.stream(items)), [item.key for item in items])

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(got == wanted for got, wanted in found.values())
    assert sum(engine.calls) == 4 * 160
    assert engine.calls.count(32) >= 4 * 160 // 32 - 4  # all but what each stream's end leaves over


def test_a_stream_that_waits_gets_its_image_although_the_batch_is_not_full():
    with Embedder(Recorder(64), DECODER, threads=1) as embedder:
        first, second = BatchesInFlight(embedder), BatchesInFlight(embedder)
        assert [*first.add(make_record("a", image=IMAGES[0])), *second.add(make_record("b", image=IMAGES[1]))] == []
        assert keys(first.drain()) == [b"a"]
        assert keys(second.drain()) == [b"b"]


def test_one_good_image_before_many_bad_ones_does_not_wait_for_ever():
    bad = range(1, 2000)
    with Embedder(Recorder(64), DECODER, threads=1) as embedder:
        batches = list(embedder.stream(records(2000, bad=bad)))
    assert keys(batches) == [b"00000"]
    assert sum(len(batch.failures) for batch in batches) == len(bad)


def test_an_error_of_the_engine_reaches_each_stream_and_later_records_still_work():
    class Broken(Recorder):
        def infer(self, images):
            if len(self.calls) == 0:
                self.calls.append(0)
                raise RuntimeError("out of memory")
            return super().infer(images)

    with Embedder(Broken(8), DECODER, threads=1) as embedder:
        with pytest.raises(RuntimeError, match="out of memory"):
            list(embedder.stream(records(8)))
        assert len(keys(embedder.stream(records(9)))) == 9


def test_an_embedder_can_be_closed_in_the_middle():
    embedder = Embedder(Recorder(64), DECODER, threads=2)
    embedder.submit(records(8))
    embedder.close()


def test_images_of_more_bytes_than_the_budget_pass_one_by_one(monkeypatch):
    from pipeline.embedding import embedder as module

    monkeypatch.setattr(module, "MAX_BYTES_PER_THREAD", len(jpeg_bytes()) // 2)
    with Embedder(Recorder(8), DECODER, threads=1) as embedder:
        assert len(keys(embedder.stream([make_record(str(i)) for i in range(20)]))) == 20
