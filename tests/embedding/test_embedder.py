import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.embedding import embedder as embedder_module
from pipeline.embedding.embedder import (
    GROUP_SIZE,
    GROUPS_PER_THREAD,
    THREADS_PER_CORE,
    BatchesInFlight,
    Embedder,
)
from pipeline.embedding.embedder_spec import EmbedderSpec
from pipeline.engines.base import ModuleFunction
from pipeline.images.decoder import ImageDecoder
from pipeline.savedmodel.digest import module_digest
from pipeline.savedmodel.module import read_module
from pipeline.savedmodel.signatures import choose_signature
from pipeline.testing import FakeEngine, jpeg_bytes, make_record, png_bytes, tiny_vectors
from tests.image_samples import OTHERS_WITH_REFERENCE

DECODER = ImageDecoder(height=32, width=32)


class WaitingEngine(FakeEngine):
    """An engine that infers one image at a time, when it is let."""

    def __init__(self, gate):
        super().__init__(1)
        self._gate = gate

    def infer(self, images):
        self._gate.wait()
        return super().infer(images)


def make_embedder(batch_size=8, **options):
    return Embedder(FakeEngine(batch_size), DECODER, **options)


def keys(batches):
    return [key for batch in batches for rows in batch.rows for key in rows.column("key").to_pylist()]


def vectors(batches):
    """Returns the vectors of batches, by key."""
    found = {}
    for batch in batches:
        for rows in batch.rows:
            values = rows.column("embedding").flatten().to_numpy().reshape(rows.num_rows, -1)
            found |= dict(zip(rows.column("key").to_pylist(), values, strict=True))
    return found


def records(count):
    return [make_record(f"{i:03d}", image=jpeg_bytes(40 + i % 3, 50, seed=i)) for i in range(count)]


class TestEmbed:
    def test_each_record_gets_the_vector_of_its_image(self):
        with make_embedder() as embedder:
            batch = embedder.embed([make_record("a", image=png_bytes(seed=1)), make_record("b")])
        found = vectors([batch])
        assert list(found) == [b"a", b"b"]
        np.testing.assert_allclose(found[b"a"], DECODER(png_bytes(seed=1)).mean(axis=(0, 1)), rtol=1e-6)
        np.testing.assert_allclose(found[b"b"], DECODER(jpeg_bytes()).mean(axis=(0, 1)), rtol=1e-6)

    def test_a_bad_image_is_a_failure_and_its_neighbours_do_not_notice(self):
        good = records(3)
        bad = make_record("bad", image=b"no image")
        with make_embedder(batch_size=2) as embedder:
            expected = vectors([embedder.embed(good)])
            batch = embedder.embed([bad, good[0], bad, good[1], good[2], bad])
        found = vectors([batch])
        assert [(failure.key, failure.stage, failure.reason) for failure in batch.failures] == [
            (b"bad", "decode", "not_an_image")
        ] * 3
        assert list(found) == list(expected)
        for key, vector in expected.items():
            np.testing.assert_array_equal(found[key], vector)

    def test_nothing_but_failures(self):
        with make_embedder() as embedder:
            batch = embedder.embed([make_record("a", image=b"")])
        assert batch.rows == ()
        assert [failure.reason for failure in batch.failures] == ["empty"]

    def test_a_vector_that_is_not_finite_is_a_failure(self):
        class Broken(FakeEngine):
            def infer(self, images):
                found = super().infer(images)
                found[1, :2] = np.nan, np.inf
                return found

        with Embedder(Broken(), DECODER) as embedder:
            batch = embedder.embed(records(3))
        assert keys([batch]) == [b"000", b"002"]
        (failure,) = batch.failures
        assert (failure.key, failure.stage, failure.reason) == (b"001", "embed", "nonfinite")
        assert failure.message == "2 of 3 values of the vector are NaN or infinite"

    def test_l2_scales_to_length_1_and_leaves_zero_alone(self):
        class Scaled(FakeEngine):
            def infer(self, images):
                return super().infer(images) * np.array([[0], [7]], np.float32)

        with Embedder(Scaled(2), DECODER, normalize="l2") as embedder:
            zero, scaled = vectors([embedder.embed(records(2))]).values()
        np.testing.assert_array_equal(zero, [0, 0, 0])
        assert np.linalg.norm(scaled) == pytest.approx(1, abs=1e-6)
        assert scaled.dtype == np.float32

    def test_the_engine_gets_no_more_than_it_takes(self):
        with make_embedder(batch_size=3) as embedder:
            embedder.embed(records(8))
            assert embedder.engine.calls == [3, 3, 2]

    def test_an_error_of_the_engine_reaches_the_caller(self):
        class Broken(FakeEngine):
            def infer(self, images):
                raise RuntimeError("out of memory")

        with Embedder(Broken(), DECODER) as embedder, pytest.raises(RuntimeError, match="out of memory"):
            list(embedder.stream(records(3)))


class TestBatches:
    @pytest.mark.parametrize(
        ("asked", "engine", "taken"), [(None, 1, GROUP_SIZE), (None, 32, 32), (5, 1, 5), (5, 8, 8), (17, 8, 24)]
    )
    def test_a_thread_takes_whole_calls_of_the_engine(self, asked, engine, taken):
        with Embedder(FakeEngine(engine), DECODER, batch_size=asked) as embedder:
            assert embedder.group_size == taken

    @given(count=st.integers(0, 60), batch_size=st.integers(1, 20), threads=st.integers(1, 4))
    @settings(deadline=None, max_examples=25)
    def test_a_stream_keeps_every_record_in_order(self, count, batch_size, threads):
        items = [make_record(f"{i:03d}", image=b"" if i % 5 == 3 else jpeg_bytes(8, 8, seed=i)) for i in range(count)]
        with Embedder(FakeEngine(4), DECODER, batch_size=batch_size, threads=threads) as embedder:
            batches = list(embedder.stream(items))
        assert keys(batches) == [item.key for item in items if item.image]
        assert [failure.key for batch in batches for failure in batch.failures] == [
            item.key for item in items if not item.image
        ]

    def test_no_more_is_under_way_than_the_bound(self):
        gate = threading.Event()
        with Embedder(WaitingEngine(gate), DECODER, batch_size=1, threads=2) as embedder:
            taken = []

            def source():
                for record in records(30):
                    taken.append(record)
                    if len(taken) > GROUPS_PER_THREAD * 2:
                        gate.set()  # else the stream would wait for results that cannot come
                    yield record

            stream = embedder.stream(source())
            next(stream)
            assert len(taken) == GROUPS_PER_THREAD * 2 + 1
            assert len(list(stream)) == 29

    def test_all_streams_of_an_embedder_share_one_bound_of_bytes(self, monkeypatch):
        monkeypatch.setattr(embedder_module, "MAX_BYTES_PER_THREAD", 2 * len(jpeg_bytes()))
        gate = threading.Event()
        with Embedder(WaitingEngine(gate), DECODER, batch_size=1, threads=1) as embedder:
            first, second = BatchesInFlight(embedder), BatchesInFlight(embedder)
            assert [*first.add(make_record("a")), *second.add(make_record("b"))] == []
            added = threading.Event()

            def add():
                list(second.add(make_record("c")))
                added.set()

            thread = threading.Thread(target=add)
            thread.start()
            assert not added.wait(0.3)
            gate.set()
            assert added.wait(60)
            thread.join()
            large = make_record("d", image=jpeg_bytes() + bytes(10 * len(jpeg_bytes())))
            rows = [batch.num_rows for batch in (*first.add(large), *first.drain(), *second.drain())]
            assert sum(rows) >= 3  # one that is larger than the bound goes alone

    def test_a_few_large_images_close_a_batch_early(self, monkeypatch):
        monkeypatch.setattr(embedder_module, "MAX_GROUP_BYTES", 3 * len(jpeg_bytes()))
        with make_embedder() as embedder:
            batches = list(embedder.stream([make_record(str(i)) for i in range(8)]))
        assert [batch.num_rows for batch in batches] == [3, 3, 2]

    def test_draining_ends_what_was_begun_and_can_be_repeated(self):
        with make_embedder() as embedder:
            batches = BatchesInFlight(embedder)
            first = [batch for record in records(3) for batch in batches.add(record)]
            first += batches.drain()
            assert keys(first) == [b"000", b"001", b"002"]
            assert list(batches.drain()) == []
            second = [*batches.add(make_record("later")), *batches.drain()]
            assert keys(second) == [b"later"]


class TestLoad:
    def test_a_spec_becomes_an_embedder(self, tiny_module):
        path = str(tiny_module)
        signature = choose_signature(read_module(path))
        engine = ModuleFunction(path, path, module_digest(path), signature, "tensorflow", threads=3)
        with Embedder.load(EmbedderSpec(engine, DECODER, batch_size=40)) as embedder:
            assert (embedder.threads, embedder.group_size, embedder.engine.name) == (
                3 * THREADS_PER_CORE,
                64,
                "tensorflow",
            )
            (vector,) = vectors([embedder.embed([make_record("a")])]).values()
        np.testing.assert_allclose(vector, tiny_vectors(DECODER(jpeg_bytes())[None])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["openvino", "tensorflow"])
def test_the_same_image_has_the_same_bits_whatever_is_around_it(name, convolution_engine):
    """Whatever the batch size, the neighbours, the number of threads and the order."""
    decoder = ImageDecoder(height=96, width=96)
    engine = convolution_engine(name)
    items = [make_record(f"{i:03d}", image=jpeg_bytes(100 + i, 120, seed=i)) for i in range(12)]
    bad = make_record("bad", image=b"no image")
    found = []
    for batch_size, threads, order in [
        (1, 1, items),
        (5, 3, items[::-1]),
        (16, 2, [bad, *items[3:], bad, bad, *items[:3]]),
        (64, 1, items),
        (2, 5, items),
    ]:
        with Embedder(engine, decoder, batch_size=batch_size, threads=threads) as embedder:
            found.append(vectors(embedder.stream(order)))
    assert len(found[0]) == len(items)
    for others in found[1:]:
        assert others.keys() == found[0].keys()
        for key, vector in found[0].items():
            np.testing.assert_array_equal(others[key], vector)


def test_encoded_images_are_checked_and_handed_over(odd_module):
    with Embedder.from_module(odd_module, signature="encoded") as embedder:
        images = [
            jpeg_bytes(seed=1),
            jpeg_bytes()[:-30],
            png_bytes(seed=2),
            OTHERS_WITH_REFERENCE["webp lossy"],
            b"no image",
        ]
        batch = embedder.embed([make_record(f"{index}", image=image) for index, image in enumerate(images)])
        spec = embedder.dataset_spec
    assert [(failure.key, failure.reason) for failure in batch.failures] == [
        (b"1", "truncated"),
        (b"4", "not_an_image"),
        (b"3", "nonfinite"),  # TensorFlow does not decode WebP there
    ]
    decoder = ImageDecoder(height=32, width=32)
    expected = tiny_vectors(np.stack([decoder(images[0]), decoder(images[2])]))
    vectors = np.concatenate([rows.column("embedding").flatten().to_numpy().reshape(-1, 8) for rows in batch.rows])
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    assert (spec.preprocessing.decode, spec.preprocessing.resize) == ("module", "module")
