"""Writes the outputs in docs/tutorial.md: runs its commands, one after the other, in a new folder.

A block that follows `<!-- run -->` gets the output of its command; one that follows `<!-- run silently -->` is only
run, because its output is another tool's. The environment of Feast must exist:
`scripts/install.sh requirements-clients.lock .venv-clients`.

Usage: python scripts/make_tutorial.py [FILE]

Without FILE, replaces docs/tutorial.md itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from make_messages import normalize

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "tutorial.md"
CLIENTS = REPOSITORY / ".venv-clients" / "bin"
BLOCK = re.compile(r"(<!-- run( silently)? -->\n\n```console\n)\$ ([^\n]*)\n.*?(```\n)", re.DOTALL)
SCRIPT = re.compile(r"`(\w+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)


def fill(page: str, folder: Path) -> str:
    """Returns a page with the outputs of its commands.

    Args:
      page: the text.
      folder: empty; the commands run there.

    Raises:
      RuntimeError: a command failed.
    """
    commands = folder / "bin"
    commands.mkdir()
    for name, path in (
        ("python", sys.executable),
        ("feast", str(CLIENTS / "feast")),
        ("feast-python", str(CLIENTS / "python")),
    ):
        (commands / name).write_text(f'#!/bin/sh\nexec "{path}" "$@"\n')
        (commands / name).chmod(0o755)
    for name, code in SCRIPT.findall(page):
        (folder / name).write_text(code)
    (folder / "scripts").symlink_to(REPOSITORY / "scripts")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PATH": f"{commands}:{os.environ['PATH']}"}

    def run(block: re.Match[str]) -> str:
        done = subprocess.run(
            ["bash", "-c", block[3]],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"'{block[3]}' ended with {done.returncode}: {done.stdout}")
        output = "" if block[2] else normalize(done.stdout, folder)
        return f"{block[1]}$ {block[3]}\n{output}{block[4]}"

    return BLOCK.sub(run, page)


def main(target: Path) -> None:
    """Writes the page with new outputs to a file."""
    with tempfile.TemporaryDirectory() as folder:
        target.write_text(fill(PAGE.read_text(), Path(folder)))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE)
