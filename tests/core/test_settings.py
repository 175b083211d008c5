import contextlib
import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import UsageError
from pipeline.core.settings import (
    DecodeConfig,
    EngineConfig,
    ExecutionConfig,
    InputConfig,
    ModuleConfig,
    OutputConfig,
    PreprocessConfig,
    parse_bytes,
    parse_image_size,
    parse_names,
)
from pipeline.core.settings.preprocess import parse_range, parse_triple

SECTIONS = (
    InputConfig,
    ModuleConfig,
    DecodeConfig,
    PreprocessConfig,
    EngineConfig,
    OutputConfig,
    ExecutionConfig,
)
UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("500000", 500_000),
        ("64MiB", 64 << 20),
        ("64mib", 64 << 20),
        (" 2 GB ", 2_000_000_000),
        ("1.5KiB", 1536),
        ("0.5kb", 500),
        ("7B", 7),
    ],
)
def test_parse_bytes(text, count):
    assert parse_bytes(text) == count


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)), st.sampled_from([str.upper, str.lower, str]))
@settings(deadline=None)
def test_parse_bytes_multiplies_by_the_unit(number, unit, case):
    assert parse_bytes(f"{number}{case(unit)}") == number * UNITS[unit]


@pytest.mark.parametrize(
    "text", ["", "MiB", "-1", "0", "0.0001KB", "1e3", "1 M", "1MiBs", "1.MB", "nan", "inf", "1\n2"]
)
def test_parse_bytes_refuses_anything_else(text):
    message = f"{text!r} is not a size in bytes; write a number with or without a unit, like 64MiB"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        parse_bytes(text)


@given(st.text() | st.from_regex(r"\d+\.?\d*[KMGTkmgt]?i?[Bb]?", fullmatch=True))
@settings(deadline=None)
def test_parse_bytes_gives_a_positive_number_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert parse_bytes(text) >= 1


@pytest.mark.parametrize("text", ["9" * 400, "9" * 5000, "1." + "9" * 5000])
def test_parse_bytes_refuses_numbers_beyond_any_file(text):
    with pytest.raises(UsageError, match="is not a size in bytes"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "size"), [("160,160", (160, 160)), (" 96 , 128 ", (96, 128)), ("1,1", (1, 1))])
def test_parse_image_size(text, size):
    assert parse_image_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "160", "160x160", "160,", "0,160", "160,0", "-1,5", "1,2,3", "1.5,2", "9" * 5000 + ",1"]
)
def test_parse_image_size_refuses_anything_else(text):
    message = f"image size {text!r} is not a height and a width in pixels; write it like 160,160"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        parse_image_size(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [("", ()), ("a", ("a",)), (" a , b,, a", ("a", "b")), ("*", ("*",)), ("image/label,é", ("image/label", "é"))],
)
def test_parse_names(text, names):
    assert parse_names(text) == names


DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputConfig(()), "no input: --input=FILE, DIRECTORY or GLOB is required"),
        (lambda: InputConfig(("",)), "no input: --input=FILE, DIRECTORY or GLOB is required"),
        (lambda: InputConfig(("a", "")), "no input: --input=FILE, DIRECTORY or GLOB is required"),
        (lambda: InputConfig("photos"), "input='photos' is one string; expected a tuple of strings"),
        (
            lambda: InputConfig(("a",), passthrough="label"),
            "passthrough='label' is one string; expected a tuple of strings",
        ),
        (
            lambda: InputConfig(("a",), input_format="jpeg"),
            "--input_format='jpeg' is unknown; expected one of auto, images, tfrecord, webdataset, parquet, csv, list",
        ),
        (
            lambda: InputConfig(("a",), passthrough=("*", "label")),
            "--passthrough=*,label: '*' already stands for every feature",
        ),
        (
            lambda: InputConfig(("a",), passthrough=("label", "key")),
            "--passthrough names 'key', which every output record already has; leave it out",
        ),
        (
            lambda: InputConfig(("a",), passthrough=("embedding",)),
            "--passthrough names 'embedding', which every output record already has; leave it out",
        ),
        (
            lambda: InputConfig(("a",), image_feature="i", passthrough=("i",)),
            "--passthrough names 'i', the image itself, which is never copied; leave it out",
        ),
        (
            lambda: ModuleConfig(""),
            "no module: --module=HANDLE is required; to try things out: untrained:mobilenet_v2_050_160",
        ),
        (
            lambda: ModuleConfig("m", module_sha256="abc"),
            "--module_sha256='abc' is not a SHA-256 digest of 64 hexadecimal digits",
        ),
        (
            lambda: ModuleConfig("m", module_sha256=DIGEST + "\n"),
            f"--module_sha256='{DIGEST}\\n' is not a SHA-256 digest of 64 hexadecimal digits",
        ),
        (
            lambda: EngineConfig(engine="onnx"),
            "--engine='onnx' is unknown; expected one of auto, openvino, tensorflow",
        ),
        (lambda: DecodeConfig(max_pixels=0), "--max_pixels=0 leaves no image; it must be at least 1"),
        (lambda: DecodeConfig(max_image_bytes=-5), "--max_image_bytes=-5 leaves no image; it must be at least 1"),
        (lambda: DecodeConfig(decode="quick"), "--decode='quick' is unknown; expected one of exact, fast"),
        (
            lambda: PreprocessConfig(resize="stretch"),
            "--resize='stretch' is unknown; expected one of squash, crop, pad",
        ),
        (
            lambda: PreprocessConfig(crop_fraction=0.0),
            "--crop_fraction=0.0 is not a share; it must be above 0 and at most 1",
        ),
        (lambda: PreprocessConfig(std=(1.0, 0.0, 1.0)), "--std=1,0,1 must be above 0"),
        (
            lambda: PreprocessConfig(""),
            "--preprocess is empty; expected a file or one of hub, keras_tf, keras_torch, keras_caffe, raw255, "
            "imagenet, clip, siglip",
        ),
        (lambda: parse_triple("1,2"), "'1,2' is not a number for each channel; write it like 0.5 or 0.485,0.456,0.406"),
        (lambda: parse_triple("nan"), "'nan' is not a number for each channel; write it like 0.5 or 0.485,0.456,0.406"),
        (lambda: parse_range("1,-1"), "'1,-1' is not a low and a high value; write it like -1,1"),
        (lambda: parse_range("a,b"), "'a,b' is not a low and a high value; write it like -1,1"),
        (lambda: EngineConfig(batch_size=0), "--batch_size=0 is not a batch size; it must be between 1 and 4096"),
        (lambda: EngineConfig(batch_size=4097), "--batch_size=4097 is not a batch size; it must be between 1 and 4096"),
        (lambda: OutputConfig(""), "no output: --output=DIRECTORY is required"),
        (
            lambda: OutputConfig("o", output_format=("tfrecord", "csv")),
            "--output_format=tfrecord,csv: 'csv' is unknown; expected one of tfrecord, parquet",
        ),
        (
            lambda: OutputConfig("o", output_format=()),
            "--output_format is empty; expected some of tfrecord,parquet",
        ),
        (
            lambda: OutputConfig("o", compression="zip"),
            "--compression='zip' is unknown; expected one of none, gzip; did you mean gzip?",
        ),
        *(
            (
                lambda rate=rate: ExecutionConfig(max_failure_rate=rate),
                f"--max_failure_rate={rate} is not a rate; it must be between 0 and 1",
            )
            for rate in (-0.1, 1.5, float("nan"), float("inf"))
        ),
        *(
            (
                lambda flag=flag: ExecutionConfig(dry_run=True, **flag),
                "--{}={} is out of range; it must be a number above 0".format(*next(iter(flag.items()))),
            )
            for flag in (
                {"workers": 0},
                {"workers": -2},
                {"price_per_vcpu_hour": 0.0},
                {"price_per_vcpu_hour": float("nan")},
                {"price_per_vcpu_hour": float("inf")},
            )
        ),
        (
            lambda: ExecutionConfig(workers=8),
            "--workers=8 has an effect only with --dry_run; add --dry_run or leave it out",
        ),
        (
            lambda: ExecutionConfig(price_per_vcpu_hour=0.05),
            "--price_per_vcpu_hour=0.05 has an effect only with --dry_run; add --dry_run or leave it out",
        ),
    ],
)
def test_refused(make, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        make()


def test_limits_are_allowed():
    assert ExecutionConfig(max_failure_rate=0).max_failure_rate == 0
    assert ExecutionConfig(max_failure_rate=1).max_failure_rate == 1
    assert EngineConfig(batch_size=1).batch_size == 1
    assert EngineConfig(batch_size=4096).batch_size == 4096
    assert DecodeConfig(max_pixels=1, max_image_bytes=1).max_pixels == 1
    assert ModuleConfig("m", module_sha256=DIGEST.upper()).module_sha256 == DIGEST.upper()


def test_defaults_are_those_of_the_contract():
    assert InputConfig(("a",)) == InputConfig(
        ("a",), input_format="auto", image_feature=None, key_feature=None, passthrough=()
    )
    assert ModuleConfig("m") == ModuleConfig("m", signature=None, output_key=None, image_size=None)
    assert set(dataclasses.asdict(PreprocessConfig()).values()) == {None}
    assert DecodeConfig() == DecodeConfig("exact", exif_orientation=False, max_pixels=10**8, max_image_bytes=64 * 2**20)
    assert OutputConfig("o") == OutputConfig("o", output_format=("tfrecord",), compression="none")
    assert ExecutionConfig() == ExecutionConfig(
        overwrite=False,
        retry_failed=False,
        wave_bytes=None,
        max_failure_rate=0.1,
        dry_run=False,
        workers=None,
        price_per_vcpu_hour=None,
        verbose=False,
        steal_lock=False,
    )
    assert EngineConfig() == EngineConfig(batch_size=None, normalize="none")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_flag_has_a_help_text_that_tells_its_default(section):
    for item in dataclasses.fields(section):
        text = item.metadata["help"]
        required = item.default is dataclasses.MISSING
        assert text.endswith("Required") == required, item.name
        if not required and item.default not in (None, (), False):
            assert item.metadata["parse"](text.rsplit("Default: ", 1)[1]) == item.default, item.name


@pytest.mark.parametrize("section", SECTIONS)
def test_settings_are_frozen(section):
    assert section.__dataclass_params__.frozen
