"""The runner of a command that works on a data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.core.console import CommandParser

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_EPILOG = (
    "With --runner, the workers of that runner do the work, each on some of the files. Beam's options are accepted "
    "beside these, as --NAME=VALUE; a runner whose workers are elsewhere needs --temp_location."
)


class DatasetParser(CommandParser):
    """The parser of a command that works on the data set OUT, here or on a runner."""

    def __init__(self, name: str, description: str) -> None:
        """Declares the arguments that these commands share.

        Args:
          name: of the command, such as `pipeline.verify`.
          description: of the command.
        """
        super().__init__(prog=f"python -m {name}", description=description, epilog=_EPILOG, allow_abbrev=False)
        self.add_argument("output", metavar="OUT", help="directory of the data set, local or gs://")
        self.add_argument("--runner", metavar="NAME", help="Beam runner, such as DataflowRunner. Default: this process")


def remote_options(given: argparse.Namespace, beam_args: Sequence[str]) -> PipelineOptions | None:
    """Returns Beam's options if they name a runner whose workers are elsewhere, else None.

    Args:
      given: the parsed arguments of a `DatasetParser`.
      beam_args: the arguments that the parser does not know.

    Raises:
      UsageError: an argument is not one of Beam's options.
    """
    if given.runner is None and not beam_args:
        return None
    # Imported here, so that --help and work in this process do not wait for Beam.
    from pipeline.beam.options import is_direct, parse_beam_args

    runner_args = [] if given.runner is None else [f"--runner={given.runner}"]
    options = parse_beam_args([*runner_args, *beam_args])
    return None if is_direct(options) else options
