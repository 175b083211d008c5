import logging
import re

import pytest

from pipeline import RunConfig, run
from pipeline.core.timing import timed
from pipeline.testing import jpeg_bytes


@pytest.fixture
def keep_level():
    logger = logging.getLogger("pipeline")
    level = logger.level
    yield
    logger.setLevel(level)


def test_a_step_is_told_with_its_time(caplog):
    caplog.set_level(logging.DEBUG, "pipeline")
    with timed("counting"):
        pass
    (message,) = caplog.messages
    assert re.fullmatch(r"start-up: \d+\.\d\d s counting", message)


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_tells_the_steps_of_starting_up(verbose, tmp_path, tiny_module, caplog, keep_level):
    logging.getLogger("pipeline").setLevel(logging.INFO)
    (tmp_path / "photo.jpg").write_bytes(jpeg_bytes())
    flags = {"input": str(tmp_path / "photo.jpg"), "module": str(tiny_module), "engine": "openvino"}
    config = RunConfig.from_flags(**flags, output=str(tmp_path / "out"), runner="DirectRunner", verbose=verbose)
    run(config)
    steps = [match[1] for text in caplog.messages if (match := re.fullmatch(r"start-up: \d+\.\d\d s (.*)", text))]
    expected = [
        "importing Beam",
        "finding the inputs",
        "finding the module",
        "planning",
        "of that, comparing the vectors of probe images",
        "loading the module",
        "from there to the first batch",
    ]
    assert [step for step in steps if "converting" not in step] == (expected if verbose else [])
