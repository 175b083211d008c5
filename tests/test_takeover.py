"""A run that is stopped at a random moment, while another one takes over the data set and finishes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.core.errors import OutputError
from tests.datasets import complete, embed, make_photos, read_vectors, until

pytestmark = pytest.mark.slow

PHOTOS = 6
RUNS = """
import json, sys
from pipeline.commands.run import main
for line in sys.stdin:
    print("exit code", main(json.loads(line)), flush=True)
"""


@contextmanager
def runner(errors: Path) -> Iterator[subprocess.Popen]:
    """Starts a process that does one run for each line of arguments; a process for each run would mostly start up."""
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", RUNS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def begin(process: subprocess.Popen, photos: Path, output: Path, module: Path, *flags: str) -> None:
    arguments = [f"--input={photos}", f"--output={output}", f"--module={module}", "--engine=tensorflow"]
    process.stdin.write(json.dumps([*arguments, "--wave_bytes=1", *flags]) + "\n")
    process.stdin.flush()


def exit_code(process: subprocess.Popen) -> int:
    """Waits for the end of a run."""
    for line in process.stdout:
        if line.startswith("exit code "):
            return int(line.split()[-1])
    raise AssertionError("the process ended")


def is_stopped(process: subprocess.Popen) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux shows whether a process is stopped")
@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_a_run_that_is_stopped_and_wakes_harms_nothing(tmp_path, tiny_module, flags):
    photos, errors = tmp_path / "photos", tmp_path / "errors"
    make_photos(photos, PHOTOS)
    embed(photos, tmp_path / "expected", tiny_module)
    expected = read_vectors(tmp_path / "expected")
    chance = random.Random(len(flags))
    ended: list[int] = []
    with runner(errors) as process:
        for number in range(-1, 10):
            output = tmp_path / str(number)
            if flags:
                embed(photos, output, tiny_module)
            read_before = errors.stat().st_size
            begin(process, photos, output, tiny_module, *flags)
            if number < 0:  # loads everything, and tells how long a run takes
                assert exit_code(process) == 0
                started = time.monotonic()
                begin(process, photos, output, tiny_module, "--overwrite")
                assert exit_code(process) == 0
                duration = time.monotonic() - started
                continue
            time.sleep(chance.uniform(0, duration))
            os.kill(process.pid, signal.SIGSTOP)
            until(lambda: is_stopped(process))
            try:
                embed(photos, output, tiny_module, wave_bytes="1", steal_lock=True)
            except OutputError as error:
                # Stopped while it changed the lock itself: nobody can take over, and it goes on.
                if "it is probably stopped: continue or end it" not in str(error):
                    raise
            os.kill(process.pid, signal.SIGCONT)
            code = exit_code(process)
            ended.append(code)
            said = errors.read_bytes()[read_before:].decode()
            assert code in (0, 1, 2), said
            assert (code == 0) == ("error:" not in said), said
            assert "Traceback" not in said, said
            assert complete(output), (number, said)
            assert read_vectors(output) == expected
            assert not (output / "lock.json").exists()
    # At least one was stopped in mid-run; one that had ended, or had not begun, ends well.
    assert set(ended) & {1, 2}
