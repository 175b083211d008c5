"""The progress of a job, from the metrics of its engine."""

from pipeline.core.config import RunConfig
from pipeline.embedding.tally import Tally
from pipeline.job.progress import Progress
from pipeline.job.run import run


class Lines:
    """Keeps the lines of progress."""

    interval_s = 0.2

    def __init__(self):
        self.lines = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def show(self, status):
        self.lines.append(str(status))


def test_a_line_has_the_count_of_the_job(cluster, data, tmp_path, monkeypatch):
    """All engines give their counts at the end; those that give them before show them in earlier lines, too."""
    display, at_end = Lines(), []
    end_wave = Progress.end_wave

    def show_and_end(progress, embedded, failed):
        at_end.append(progress.status)
        end_wave(progress, embedded, failed)

    monkeypatch.setattr(Progress, "end_wave", show_and_end)
    summary = run(RunConfig.from_args(cluster.run_flags(data.directory, data.module, tmp_path / "out")), display)
    (status,) = at_end
    assert Tally(status.done.embedded, status.done.failed) == Tally(summary.embedded, summary.failed)
    assert str(status).startswith(f"{summary.embedded} embedded (")
