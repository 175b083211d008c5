import importlib
import re

import pytest

from pipeline.commands import overview


def test_each_command_is_listed_and_has_help(capsys):
    assert overview.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Each has --help."
    assert len(lines) - 1 == len(overview.COMMANDS) >= 6
    for line in lines[:-1]:
        command = re.match(r"python -m (pipeline\.\w+)( [a-z]+)?", line)
        is_folder = command[1] in ("pipeline.export", "pipeline.hub", "pipeline.report")
        module = f"{command[1]}.__main__" if is_folder else command[1]
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(module).main([*(command[2] or "").split(), "--help"])
        assert ended.value.code == 0
        assert f"usage: python -m {command[1]}" in capsys.readouterr().out


def test_arguments_are_refused(capsys):
    assert overview.main(["run"]) == 2
    assert "unrecognized arguments: run" in capsys.readouterr().err
