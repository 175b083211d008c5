"""The command of the main job: images in, embeddings out. `python -m pipeline.run --help` tells the flags."""

from __future__ import annotations

import logging
import sys
import traceback
import types
from collections.abc import Sequence

from pipeline.config import RunConfig
from pipeline.errors import PipelineError
from pipeline.job import Summary, run


class _CallableModule(types.ModuleType):
    """Lets `pipeline.run(config)` run the job, although importing this module gives the name to it."""

    def __call__(self, config: RunConfig) -> Summary:
        return run(config)


sys.modules[__name__].__class__ = _CallableModule


def format_summary(summary: Summary, output: str) -> str:
    """Returns the few lines about a run that a person wants to see at its end."""
    lines = [
        f"{summary.embedded} of {summary.records} records embedded in {summary.seconds:.1f} s "
        f"({summary.images_per_second:.0f} images/s), {summary.dimension} values each",
        *(f"  {count} failed: {reason}" for reason, count in summary.failures_by_reason.items()),
        f"module {summary.module} ({summary.module_sha256[:12]}), engine {summary.engine}",
        f"data set {output}",
    ]
    return "\n".join(lines)


def configure_logging() -> None:
    """Sends this package's messages to stderr, and of the libraries' only warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pipeline").setLevel(logging.INFO)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    configure_logging()
    try:
        config = RunConfig.from_args(sys.argv[1:] if args is None else args)
        summary = run(config)
    except PipelineError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except Exception:
        traceback.print_exc()
        sys.stderr.write("error: this was not expected; please report it with the lines above\n")
        return 1
    sys.stdout.write(format_summary(summary, config.output.output) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
