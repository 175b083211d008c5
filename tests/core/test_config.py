import contextlib
import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.config import RunConfig, describe_unknown_arg, make_parser, option_name
from pipeline.core.errors import UsageError
from pipeline.core.settings import (
    DecodeConfig,
    EngineConfig,
    ExecutionConfig,
    InputConfig,
    ModuleConfig,
    OutputConfig,
    PreprocessConfig,
)

REQUIRED = {"input": "photos", "module": "m.tar.gz", "output": "out"}
REQUIRED_ARGS = [f"--{name}={value}" for name, value in REQUIRED.items()]

# One function-scoped directory for all examples does: each writes the file anew.
many = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def from_yaml(tmp_path, text, *args):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return RunConfig.from_args([f"--config={path}", *args])


def test_the_least_that_is_needed():
    assert RunConfig.from_args(REQUIRED_ARGS) == RunConfig(
        InputConfig(("photos",)), ModuleConfig("m.tar.gz"), OutputConfig("out")
    )


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("input", "no input: --input="),
        ("module", "no module: --module="),
        ("output", "no output: --output="),
    ],
)
def test_required_flags(missing, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        RunConfig.from_args([f"--{name}={value}" for name, value in REQUIRED.items() if name != missing])


FULL = {
    "input": ["a/*.jpg", "gs://b/c"],
    "input_format": "images",
    "image_feature": "jpeg",
    "key_feature": "id",
    "passthrough": ["label", "text"],
    "module": "m",
    "module_sha256": "0f" * 32,
    "signature": "s",
    "output_key": "k",
    "image_size": [96, 128],
    "decode": "fast",
    "exif_orientation": True,
    "max_pixels": 1000,
    "max_image_bytes": 4096,
    "preprocess": "clip",
    "input_range": [0, 255],
    "mean": [0.5, 0.4, 0.3],
    "std": 0.2,
    "resize": "pad",
    "crop_fraction": 0.9,
    "interpolation": "bicubic",
    "antialias": False,
    "channels": "bgr",
    "batch_size": 5,
    "normalize": "l2",
    "output": "o",
    "output_format": ["parquet"],
    "compression": "gzip",
    "overwrite": True,
    "max_failure_rate": 0.25,
    "direct_num_workers": 2,
    "experiments": ["x", "y"],
}
FULL_CONFIG = RunConfig(
    input=InputConfig(("a/*.jpg", "gs://b/c"), "images", "jpeg", "id", ("label", "text")),
    module=ModuleConfig("m", "0f" * 32, "s", "k", (96, 128)),
    decode=DecodeConfig("fast", True, 1000, 4096),
    preprocess=PreprocessConfig(
        "clip", (0.0, 255.0), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "pad", 0.9, "bicubic", False, "bgr"
    ),
    engine=EngineConfig(batch_size=5, normalize="l2"),
    output=OutputConfig("o", ("parquet",), compression="gzip"),
    execution=ExecutionConfig(overwrite=True, max_failure_rate=0.25),
    beam_args=("--direct_num_workers=2", "--experiments=x", "--experiments=y"),
)
FULL_ARGS = [
    "--input=a/*.jpg",
    "--input=gs://b/c",
    "--input_format=images",
    "--image_feature=jpeg",
    "--key_feature=id",
    "--passthrough=label,text",
    "--module=m",
    f"--module_sha256={'0f' * 32}",
    "--signature=s",
    "--output_key=k",
    "--image_size=96,128",
    "--decode=fast",
    "--exif_orientation",
    "--max_pixels=1000",
    "--max_image_bytes=4KiB",
    "--preprocess=clip",
    "--input_range=0,255",
    "--mean=0.5,0.4,0.3",
    "--std=0.2",
    "--resize=pad",
    "--crop_fraction=0.9",
    "--interpolation=bicubic",
    "--no-antialias",
    "--channels=bgr",
    "--batch_size=5",
    "--normalize=l2",
    "--output=o",
    "--output_format=parquet",
    "--compression=gzip",
    "--overwrite",
    "--max_failure_rate=0.25",
    "--direct_num_workers=2",
    "--experiments=x",
    "--experiments=y",
]


def test_command_line_file_and_python_mean_the_same(tmp_path):
    assert RunConfig.from_args(FULL_ARGS) == FULL_CONFIG
    assert RunConfig.from_flags(**FULL) == FULL_CONFIG
    assert from_yaml(tmp_path, yaml.safe_dump(FULL)) == FULL_CONFIG


def test_a_value_may_follow_its_flag():
    args = [part for arg in FULL_ARGS for part in arg.split("=", 1)]
    config = RunConfig.from_args(args)
    assert (config.input, config.module, config.output) == (FULL_CONFIG.input, FULL_CONFIG.module, FULL_CONFIG.output)


def test_paths_from_python(tmp_path):
    config = RunConfig.from_flags(**REQUIRED | {"input": tmp_path, "output": tmp_path / "out"})
    assert config.input.input == (str(tmp_path),)
    assert config.output.output == str(tmp_path / "out")


def test_parquet_has_a_time_stamp_of_its_own():
    clash = REQUIRED | {"passthrough": ["event_timestamp"]}
    assert RunConfig.from_flags(**clash).input.passthrough == ("event_timestamp",)
    message = "--passthrough names 'event_timestamp', which every row of a Parquet file already has; leave it out"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        RunConfig.from_flags(**clash, output_format=["tfrecord", "parquet"])


VALUES = {
    "key_feature": st.sampled_from(["id", "name"]),
    "compression": st.sampled_from(["none", "gzip"]),
    "batch_size": st.integers(1, 99),
    "max_failure_rate": st.sampled_from([0.0, 0.5, 1.0]),
    "overwrite": st.booleans(),
    "exif_orientation": st.booleans(),
    "passthrough": st.lists(st.sampled_from(["a", "b", "c"]), unique=True),
    "image_size": st.lists(st.integers(1, 999), min_size=2, max_size=2),
    "input": st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3),
    "runner": st.sampled_from(["DirectRunner", "DataflowRunner"]),
}
flags = st.fixed_dictionaries({}, optional=VALUES)


def as_args(values):
    args = []
    for name, value in values.items():
        if isinstance(value, bool):
            args.append(f"--{name}" if value else f"--no-{name}")
        elif name == "input":
            args += [f"--input={item}" for item in value]
        elif isinstance(value, list):
            args.append(f"--{name}={','.join(map(str, value))}")
        else:
            args.append(f"--{name}={value}")
    return args


@given(in_file=flags, on_command_line=flags, data=st.data())
@many
def test_the_command_line_wins_whatever_the_order(tmp_path, in_file, on_command_line, data):
    in_file = {**REQUIRED, **in_file}
    path = tmp_path / "config.yaml"
    shuffled = data.draw(st.permutations(list(in_file.items())))
    path.write_text(yaml.safe_dump(dict(shuffled), sort_keys=False))
    args = [f"--config={path}", *as_args(on_command_line)]
    place = data.draw(st.integers(0, len(args) - 1))
    args = [*args[1 : 1 + place], args[0], *args[1 + place :]]
    assert RunConfig.from_args(args) == RunConfig.from_flags(**{**in_file, **on_command_line})


def test_a_repeated_input_of_the_command_line_replaces_all_of_the_file(tmp_path):
    text = "input: [a, b]\nmodule: m\noutput: o\n"
    assert from_yaml(tmp_path, text).input.input == ("a", "b")
    assert from_yaml(tmp_path, text, "--input=c").input.input == ("c",)


def test_beam_options_of_the_command_line_replace_those_of_the_file(tmp_path):
    text = yaml.safe_dump({**REQUIRED, "experiments": ["a", "b"], "region": "r", "streaming": False, "s3_verify": True})
    assert from_yaml(tmp_path, text).beam_args == ("--experiments=a", "--experiments=b", "--region=r", "--s3_verify")
    config = from_yaml(tmp_path, text, "--experiments", "c")
    assert config.beam_args == ("--region=r", "--s3_verify", "--experiments", "c")


def test_a_switch_of_the_file_can_be_turned_off_again(tmp_path):
    text = yaml.safe_dump({**REQUIRED, "overwrite": True})
    assert from_yaml(tmp_path, text).execution.overwrite
    assert not from_yaml(tmp_path, text, "--no-overwrite").execution.overwrite


def test_nothing_and_empty_files_say_nothing(tmp_path):
    for text in ("", "# just a comment\n", "---\n"):
        assert from_yaml(tmp_path, text, *REQUIRED_ARGS) == RunConfig.from_args(REQUIRED_ARGS)
    text = "key_feature:\nbatch_size: null\n"
    assert from_yaml(tmp_path, text, *REQUIRED_ARGS) == RunConfig.from_args(REQUIRED_ARGS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must hold one mapping from flag names to values, like 'input: photos/'"),
        ("just text", "must hold one mapping from flag names to values"),
        ("1: a", "must hold one mapping from flag names to values"),
        ("a: [", "is not YAML: while parsing"),
        ("? [a]\n: b", "is not YAML: while constructing"),
        ("batch_size: !!python/object/apply:os.system [ls]", "is not YAML: could not determine a constructor"),
        ("config: other.yaml", "names another 'config'; only one file is allowed"),
        ("--input: a", ": '--input' is not a flag name; write it without dashes"),
        ("a b: 1", ": 'a b' is not a flag name; write it without dashes"),
        ("a=b: 1", ": 'a=b' is not a flag name; write it without dashes"),
        ("batch_size: many", ": argument --batch_size: invalid whole number value: 'many'"),
        ("batch_size: 1.5", ": argument --batch_size: invalid whole number value: '1.5'"),
        ("max_failure_rate: often", ": argument --max_failure_rate: invalid number value: 'often'"),
        ("max_failure_rate: true", ": max_failure_rate: true arrived where a value was expected"),
        ("key_feature: no", ": key_feature: false arrived where a value was expected"),
        ("decode: quick", ": argument --decode: 'quick' is unknown; expected one of exact, fast"),
        ("image_size: [1, 2, 3]", ": argument --image_size: image size '1,2,3' is not a height and a width"),
        ("max_image_bytes: 5 apples", ": argument --max_image_bytes: '5 apples' is not a size in bytes"),
        ("max_image_bytes: " + "9" * 400, ": argument --max_image_bytes: '9"),
        ("overwrite: 'yes'", ": overwrite: 'yes' arrived where true or false was expected"),
        ("input: {a: b}", ": input: a dict arrived where a value or a list of values was expected"),
        ("input: [a, null]", ": input: a NoneType arrived where a value or a list of values was expected"),
        ("input: [[a]]", ": input: a list arrived where a value or a list of values was expected"),
        ("input: !!binary aGVsbG8=", ": input: a bytes arrived where a value or a list of values was expected"),
        ("batch_size: 0x" + "f" * 9000, ": batch_size: a number with too many digits arrived"),
        ("runner: {name: a}", ": runner: a dict arrived where a value or a list of values was expected"),
        ("help: true", ": 'help' is not a setting of a run; leave it out"),
    ],
)
def test_bad_files(tmp_path, text, message):
    with pytest.raises(
        UsageError, match=f"^--config={re.escape(str(tmp_path / 'config.yaml'))}.*{re.escape(message)}"
    ) as error:
        from_yaml(tmp_path, text, *REQUIRED_ARGS)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"^--config=/nowhere/c.yaml cannot be read: No such file or directory$"):
        RunConfig.from_args(["--config=/nowhere/c.yaml"])
    with pytest.raises(UsageError, match=r"cannot be read: Is a directory$"):
        RunConfig.from_args([f"--config={tmp_path}"])
    (tmp_path / "latin").write_bytes(b"input: caf\xe9")
    with pytest.raises(UsageError, match=r"cannot be read: not UTF-8 text$"):
        RunConfig.from_args([f"--config={tmp_path / 'latin'}"])


plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.binary(max_size=5)
)
keys = st.sampled_from([*FULL, "config", "help", "h"]) | st.text(max_size=8) | st.integers()
nested = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
)


@given(st.dictionaries(keys, nested, max_size=4))
@many
def test_any_mapping_makes_a_configuration_or_a_usage_error(tmp_path, values):
    with contextlib.suppress(UsageError):
        assert isinstance(from_yaml(tmp_path, yaml.safe_dump(values, allow_unicode=True), *REQUIRED_ARGS), RunConfig)


@given(st.text(max_size=60) | st.binary(max_size=60))
@many
def test_any_file_makes_a_configuration_or_a_usage_error(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UsageError):
        assert isinstance(RunConfig.from_args([f"--config={path}", *REQUIRED_ARGS]), RunConfig)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--input"], "argument --input: expected one argument"),
        (["--batch_size=x"], "argument --batch_size: invalid whole number value: 'x'"),
        (["--max_failure_rate=x"], "argument --max_failure_rate: invalid number value: 'x'"),
        (["--max_pixels=1e6"], "argument --max_pixels: invalid whole number value: '1e6'"),
        (["--image_size=5"], "argument --image_size: image size '5' is not a height and a width in pixels"),
        (["--max_image_bytes=x"], "argument --max_image_bytes: 'x' is not a size in bytes"),
        (["--input_format=x"], "argument --input_format: 'x' is unknown; expected one of auto, images, "),
        (
            ["--engine=openvno"],
            "argument --engine: 'openvno' is unknown; expected one of auto, openvino, tensorflow; did you mean open",
        ),
        (["--normalize=L2"], "argument --normalize: 'L2' is unknown; expected one of none, l2; did you mean l2?"),
        (
            ["--output_format=parqet"],
            "--output_format=parqet: 'parqet' is unknown; expected one of tfrecord, parquet; did",
        ),
        (["--batch_size=0"], "--batch_size=0 is not a batch size"),
    ],
)
def test_bad_arguments(args, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        RunConfig.from_args([*REQUIRED_ARGS, *args])


def test_bad_python_values():
    with pytest.raises(UsageError, match=r"^input: a dict arrived where a value or a list of values was expected$"):
        RunConfig.from_flags(**REQUIRED | {"input": {}})
    with pytest.raises(UsageError, match="'zip' is unknown; expected one of none, gzip"):
        RunConfig.from_flags(**REQUIRED, compression="zip")


def test_flags_are_not_abbreviated():
    config = RunConfig.from_args([*REQUIRED_ARGS, "--compress=gzip"])
    assert config.output.compression == "none"
    assert config.beam_args == ("--compress=gzip",)


def test_unknown_arguments_are_left_to_beam():
    config = RunConfig.from_args([*REQUIRED_ARGS, "--runner=DirectRunner", "--temp_location", "gs://b/t", "stray"])
    assert config.beam_args == ("--runner=DirectRunner", "--temp_location", "gs://b/t", "stray")


def test_help_lists_every_flag_and_exits_0(capsys):
    with pytest.raises(SystemExit) as caught:
        RunConfig.from_args(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name in (*FULL, "config", "engine"):
        if name not in ("direct_num_workers", "experiments"):
            assert f"--{name}" in text
    assert make_parser().prog in text


@pytest.mark.parametrize(
    ("arg", "name"),
    [("--a=b", "a"), ("--a", "a"), ("--a=b=c", "a"), ("a", None), ("-a", None), ("--", None), ("--=b", None)],
)
def test_option_name(arg, name):
    assert option_name(arg) == name


@pytest.mark.parametrize(
    ("arg", "advice"),
    [
        ("--inputs=a", "did you mean --input?"),
        ("--batchsize=3", "did you mean --batch_size?"),
        ("--runer=x", "did you mean --runner?"),
        ("--qqq", "see --help, and Beam's own options"),
        ("photos/", "put a pattern with * in quotes, and each value behind its own flag"),
    ],
)
def test_the_text_of_an_unknown_argument(arg, advice):
    assert describe_unknown_arg(arg, ["--runner"]) == f"unknown argument '{arg}'; {advice}"


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("spoil", [lambda name: name[:2] + name[3:], lambda name: name + "s", str.upper])
def test_a_misspelt_flag_is_named_where_a_required_one_is_missing(tmp_path, name, spoil):
    values = {spoil(key) if key == name else key: value for key, value in REQUIRED.items()}
    text = f"^unknown argument '--{spoil(name)}={REQUIRED[name]}'; did you mean --{name}\\?$"
    with pytest.raises(UsageError, match=text):
        RunConfig.from_args([f"--{key}={value}" for key, value in values.items()])
    with pytest.raises(UsageError, match=text):
        from_yaml(tmp_path, yaml.safe_dump(values))


def test_a_switch_takes_no_value(tmp_path):
    text = "argument --overwrite/--no-overwrite: 'true' arrived, but the flag takes no value"
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        RunConfig.from_args(["--input=a", "--module=m", "--output=o", "--overwrite=true"])
    (tmp_path / "a.yaml").write_text("overwrite: 'true'")
    with pytest.raises(UsageError, match=r"a\.yaml: overwrite: 'true' arrived where true or false was expected$"):
        RunConfig.from_args([f"--config={tmp_path}/a.yaml"])
