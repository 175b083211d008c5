"""`python -m pipeline`: lists the commands."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.console import CommandParser, print_line, run_command

COMMANDS = {
    "pipeline.run": "turn images into embeddings",
    "pipeline.verify OUT": "check a data set against its manifests",
    "pipeline.report OUT": "write a page that shows a data set: a map, duplicates, failures, similar images",
    "pipeline.neighbours OUT IMAGE_OR_KEY": "print the images of a data set that are most similar to an image",
    "pipeline.compact OUT": "merge the waves of a data set and drop superseded rows",
    "pipeline.export OUT": "write the rows of a data set in another system's form",
    "pipeline.hub describe HANDLE": "print the image size, the signatures and the digest of a module",
    "pipeline.hub export": "make a module from a TF-Slim checkpoint",
    "pipeline.hub finetune": "fine-tune a module on labelled records",
}
"""The commands, with what each of them does."""


def _command(args: Sequence[str]) -> int:
    parser = CommandParser(prog="python -m pipeline", description="Lists the commands.", allow_abbrev=False)
    parser.parse_args(args)
    width = max(map(len, COMMANDS))
    for command, purpose in COMMANDS.items():
        print_line(f"python -m {command:{width}}  {purpose}")
    print_line("Each has --help.")
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command(_command, args)
