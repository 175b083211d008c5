import dataclasses
import json
import pickle

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.failures import FAILURE_REASONS, Failure
from pipeline.core.records import EmbeddingBatch, Feature, ImageRecord

failures = st.builds(
    Failure,
    key=st.binary(),
    source=st.binary().map(lambda path: path.decode("utf-8", "surrogateescape")),
    stage=st.sampled_from(["read", "decode", "embed"]),
    reason=st.sampled_from(FAILURE_REASONS),
    message=st.text(),
)


@given(failures)
@settings(deadline=None, max_examples=200)
def test_a_failure_survives_as_one_line_of_json(failure):
    line = failure.to_json()
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert Failure.from_json(line) == failure


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"a\nb",
        b"a\0b",
        b"..",
        b"\xff\xfe",
        "\U0001f600é".encode(),
        b"\xed\xa0\xbd\xed\xb8\x80",  # two surrogates in UTF-8, which is none
        "\U0001f600".encode() + b"\x80",
        b"k" * 10_000,
    ],
)
def test_hostile_keys_survive(key):
    failure = Failure(key, "s", "read", "empty", "m")
    assert Failure.from_json(failure.to_json()).key == key


def test_the_line_is_that_of_the_contract():
    failure = Failure(b"photo \xc3\xa9 \xff", "dir/a@12", "read", "corrupt_record", 'what "arrived"')
    assert failure.to_json() == (
        '{"key": "photo \\u00e9 \\udcff", "source": "dir/a@12", "stage": "read", '
        '"reason": "corrupt_record", "message": "what \\"arrived\\""}'
    )


def test_reasons_are_those_of_the_contract():
    assert (
        "read_error",
        "corrupt_record",
        "missing_feature",
        "empty",
        "not_an_image",
        "unsupported_format",
        "truncated",
        "too_large",
        "nonfinite",
        *(f"http_{status}" for status in (400, 401, 403, 404, 410, 429, 451, 500, 502, 503, 504)),
        "http_status",
        "http_timeout",
        "http_connection",
        "http_redirects",
        "http_invalid",
        "http_private_address",
    ) == FAILURE_REASONS


@pytest.mark.parametrize(
    "record",
    [
        Feature("int64", (1,)),
        ImageRecord(b"k", "s", b"i", {"a": Feature("bytes", (b"x",))}),
        Failure(b"k", "s", "decode", "empty", "m"),
        EmbeddingBatch((), (), ()),
    ],
)
def test_records_are_frozen_and_travel(record):
    assert pickle.loads(pickle.dumps(record)) == record
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, None)


def test_rows_of_a_batch_are_counted():
    rows = pa.RecordBatch.from_pydict({"key": pa.array([b"a", b"b"])})
    assert EmbeddingBatch((), (), ()).num_rows == 0
    assert EmbeddingBatch((rows, rows.slice(1)), (), ()).num_rows == 3


def test_keys_are_text_for_other_programs():
    assert json.loads(Failure("é\n".encode(), "s", "read", "empty", "m").to_json())["key"] == "é\n"
