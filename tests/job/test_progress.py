import logging
import threading

import pytest

import pipeline
from pipeline.core.config import RunConfig
from pipeline.core.errors import UsageError
from pipeline.embedding.tally import Tally
from pipeline.inputs.base import UNKNOWN_BYTES
from pipeline.job import progress as job_progress
from pipeline.job.progress import LogDisplay, Progress, Status


class Screen:
    """Keeps what it is shown."""

    def __init__(self, interval_s=0.001):
        self.interval_s = interval_s
        self.shown = []
        self.is_entered = False
        self.changed = threading.Event()

    def __enter__(self):
        self.is_entered = True
        return self

    def __exit__(self, *_):
        self.is_entered = False

    def show(self, status):
        assert self.is_entered
        self.shown.append(status)
        self.changed.set()

    def wait(self):
        self.changed.clear()
        assert self.changed.wait(60)
        return self.shown[-1]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Status(1, 1, Tally(), 3.2, 0.0), "0:00:03 so far"),
        (Status(1, 1, Tally(500, 0, 9), 10.0, 0.25), "500 embedded (50 images/s), 0:00:10 so far, about 0:00:30 left"),
        (
            Status(2, 5, Tally(40_000, 7, 9), 4000.0, 0.5),
            "wave 2 of 5, 40000 embedded (10 images/s), 7 failed, 1:06:40 so far, about 1:06:40 left",
        ),
        (Status(1, 1, Tally(0, 3, 9), 10.0, 0.009), "0 embedded (0 images/s), 3 failed, 0:00:10 so far"),
        (Status(3, 3, Tally(), 86_400.0, 1.0), "wave 3 of 3, 1 day, 0:00:00 so far, about 0:00:00 left"),
    ],
)
def test_the_text_of_a_status(status, text):
    assert str(status) == text


def test_images_of_unknown_size_go_by_their_number():
    progress = Progress([4 * UNKNOWN_BYTES, 10], Screen(), [4, 0])
    progress.begin_wave()
    progress.count_with(lambda: Tally(1, 1, 500))
    assert progress.status.share == pytest.approx(0.5, abs=1e-4)
    progress.count_with(lambda: Tally(3, 1, 900))
    assert 0.99 < progress.status.share < 1


def test_the_share_goes_by_bytes_and_the_counts_by_records():
    screen = Screen()
    with Progress([100, 300], screen) as progress:
        progress.begin_wave()
        progress.count_with(lambda: Tally(5, 1, 50))
        status = progress.status
        assert (status.wave, status.waves, status.done, status.share) == (1, 2, Tally(5, 1, 50), 50 / 400)
        assert screen.wait().done.embedded == 5
        progress.end_wave(9, 2)
        progress.begin_wave()
        assert (progress.status.done, progress.status.share) == (Tally(9, 2), 100 / 400)
        progress.count_with(lambda: Tally(1, 0, 10_000))  # a compressed file holds more bytes than it has
        assert (progress.status.done.embedded, progress.status.share) == (10, 1.0)
    assert not screen.is_entered


def test_a_runner_that_does_not_answer_leaves_the_last_counts():
    answers = iter([Tally(5, 0, 50)])
    progress = Progress([100], Screen())
    progress.begin_wave()
    progress.count_with(lambda: next(answers))
    assert progress.status.done.embedded == 5
    assert progress.status.done.embedded == 5


def test_an_error_ends_the_display():
    screen = Screen()
    with pytest.raises(ValueError, match="the run failed"), Progress([1], screen):
        raise ValueError("the run failed")
    assert not screen.is_entered


def test_the_log_display_logs(caplog):
    caplog.set_level(logging.INFO)
    with LogDisplay() as display:
        display.show(Status(1, 1, Tally(), 3.2, 0.0))
    assert caplog.messages == ["0:00:03 so far"]


@pytest.mark.parametrize("runner_flags", [{}, {"direct_num_workers": 2, "direct_running_mode": "multi_threading"}])
def test_a_run_counts_what_it_embeds_and_what_failed(photos, tmp_path, tiny_module, runner_flags, monkeypatch):
    """The status after the pipeline of a wave has ended, before the next one begins."""
    seen = []
    end_wave = Progress.end_wave

    def note(progress, embedded, failed):
        seen.append((progress.status, embedded, failed))
        end_wave(progress, embedded, failed)

    monkeypatch.setattr(job_progress.Progress, "end_wave", note)
    (photos / "bad.jpg").write_bytes(b"bad")
    (photos / "gone.jpg").symlink_to("nowhere")
    flags = {"input": str(photos), "module": str(tiny_module), "output": str(tmp_path / "out"), "wave_bytes": "1"}
    config = RunConfig.from_flags(**flags, engine="tensorflow", max_failure_rate=1.0, **runner_flags)
    screen = Screen()
    summary = pipeline.run(config, screen)
    assert len(seen) == summary.waves > 2
    done = Tally()
    for status, embedded, failed in seen:
        done += Tally(embedded, failed)
        assert (status.done.embedded, status.done.failed) == (done.embedded, done.failed)
    assert (done.embedded, done.failed) == (summary.embedded, summary.failed)
    assert not screen.is_entered


def test_quiet_and_verbose_contradict_each_other():
    with pytest.raises(UsageError, match=r"^--quiet and --verbose contradict each other; leave one out$"):
        RunConfig.from_flags(input="a", module="b", output="c", quiet=True, verbose=True)
