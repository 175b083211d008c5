import io
import re

from pipeline.finetune.progress import training_progress

LINE = "epoch 1 of 5, whole network: [training] loss 0.100, accuracy 99.0% :smile:; " + "and more " * 20


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream):
    with training_progress(stream) as progress:
        task = progress.add_task("", total=4, completed=1)
        progress.update(task, advance=1, description="loss [b]0.5")
        progress.console.print(LINE)
        progress.update(task, advance=1)
    return stream.getvalue()


def test_anything_but_a_terminal_gets_whole_lines_only():
    assert run(io.StringIO()) == f"{LINE}\n"


def test_bar_on_a_terminal_disappears_and_lines_stay(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    text = run(Terminal())
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "━" in plain
    assert "loss [b]0.5" in plain
    assert LINE in plain.replace("\r", "")
    assert text.rstrip().endswith("\x1b[2K"), "the last line is not cleared"
