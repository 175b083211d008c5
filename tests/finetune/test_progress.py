import io

from pipeline.finetune import progress
from pipeline.finetune.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_anything_but_a_terminal_gets_whole_lines_only():
    stream = io.StringIO()
    bar = ProgressBar(stream, 2)
    bar.advance("working")
    bar.line("one is done")
    bar.advance("working")
    bar.clear()
    assert stream.getvalue() == "one is done\n"


def test_bar_on_a_terminal(monkeypatch):
    times = iter([0.0, 1.0, 3.0, 4.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    stream = Terminal()
    bar = ProgressBar(stream, 4, done=1)
    bar.advance("first of a long text")
    bar.advance("second")
    bar.line("done")
    first, second, blank, line = stream.getvalue().split("\r")[1:]
    assert first == "[############............] 0:02 left, first of a long text"
    assert second.rstrip() == "[##################......] 0:02 left, second"
    assert len(second) == len(first)
    assert blank.strip() == ""
    assert line == "done\n"


def test_bar_is_not_drawn_more_often_than_one_can_see(monkeypatch):
    times = iter([0.0, 1.0, 1.05, 1.2])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    stream = Terminal()
    bar = ProgressBar(stream, 5000)
    for text in ("first", "second", "third"):
        bar.advance(text)
    assert stream.getvalue().count("\r") == 2
    assert "0:33:" not in stream.getvalue()
    assert "1:23:19 left, first" in stream.getvalue()
