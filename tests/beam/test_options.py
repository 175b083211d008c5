import re

import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.beam.internals import make_option_parser
from pipeline.beam.options import (
    check_options,
    is_direct,
    make_runner,
    parse_beam_args,
    runner_name,
    runs_in_process,
    temp_location,
)
from pipeline.core.config import RunConfig, make_parser
from pipeline.core.errors import UsageError


def test_options_reach_beam():
    options = parse_beam_args(["--direct_num_workers=3", "--temp_location", "gs://b/t", "--streaming"])
    assert options.view_as(DirectOptions).direct_num_workers == 3
    assert options.view_as(StandardOptions).streaming
    assert temp_location(options) == "gs://b/t"
    assert temp_location(parse_beam_args([])) is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--runer=DirectRunner"], "unknown argument '--runer=DirectRunner'; did you mean --runner?"),
        (["--direct_num_worker=3"], "unknown argument '--direct_num_worker=3'; did you mean --direct_num_workers?"),
        (["--inputs=a"], "unknown argument '--inputs=a'; did you mean --input?"),
        (["photos/"], "unknown argument 'photos/'; put a pattern with * in quotes, and each value behind its own flag"),
        (["--runner=DirectRunner", "-x"], "unknown argument '-x'; see --help, and Beam's own options"),
        (
            ["--direct_num_workers=many"],
            "argument --direct_num_workers: invalid int value: 'many'; see Beam's documentation of this option",
        ),
        (["--runner"], "argument --runner: expected one argument; see Beam's documentation of this option"),
    ],
)
def test_arguments_that_beam_does_not_know_are_refused(args, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        parse_beam_args(args)


def test_options_are_not_abbreviated():
    with pytest.raises(UsageError, match=r"unknown argument '--direct_num=3'"):
        parse_beam_args(["--direct_num=3"])


@pytest.mark.parametrize("args", [[], ["--runner=DirectRunner"], ["--runner=directrunner"], ["--runner=direct"]])
def test_the_direct_runner_is_the_one_in_this_process(args):
    options = parse_beam_args(args)
    assert runner_name(options) == "DirectRunner"
    assert is_direct(options)
    assert isinstance(make_runner(options), FnApiRunner)


def test_other_runners():
    options = parse_beam_args(["--runner=PortableRunner"])
    assert runner_name(options) == "PortableRunner"
    assert not is_direct(options)
    assert not runs_in_process(options)
    assert type(make_runner(options)).__name__ == "PortableRunner"


@pytest.mark.parametrize("name", ["no.such.Runner", "pipeline.beam.options.NoSuchRunner"])
def test_unknown_classes_are_refused(name):
    with pytest.raises(UsageError, match=rf"^--runner={name} cannot be used: .*; try DirectRunner or DataflowRunner$"):
        make_runner(parse_beam_args([f"--runner={name}"]))


def test_a_misspelt_runner_is_refused_with_the_right_one():
    text = (
        "--runner='FlinkRuner' is unknown; expected one of DirectRunner, DataflowRunner, FlinkRunner, SparkRunner, "
        "PrismRunner, PortableRunner, or the path of a class; did you mean FlinkRunner?"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        make_runner(parse_beam_args(["--runner=FlinkRuner"]))


def test_no_option_of_beam_is_taken_for_a_required_flag():
    """A run that lacks one says so, and not that it does not know an option of Beam."""
    ours = {option for action in make_parser()._actions for option in action.option_strings}
    for action in make_option_parser()._actions:
        for option in set(action.option_strings) - ours:
            with pytest.raises(UsageError, match=r"^no input: --input=FILE"):
                RunConfig.from_args([f"{option}=x"])


@pytest.mark.parametrize(
    ("mode", "in_process"), [("in_memory", True), ("multi_threading", True), ("multi_processing", False)]
)
def test_workers_are_threads_of_this_process_except_when_asked_otherwise(mode, in_process):
    assert runs_in_process(parse_beam_args([f"--direct_running_mode={mode}"])) is in_process


def test_a_number_of_workers_below_none_is_refused():
    text = "--direct_num_workers=-1; expected the number of workers, or 0 for one for each core"
    with pytest.raises(UsageError, match=f"^{text}$"):
        check_options(parse_beam_args(["--direct_num_workers=-1"]))
