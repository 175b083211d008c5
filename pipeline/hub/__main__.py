"""The commands about modules. `python -m pipeline.hub --help` tells them."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from pipeline.errors import PipelineError, UsageError


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `UsageError`s."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {self.prog} --help tells the flags")


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of `python -m pipeline.hub`; its result's `run` carries out the command."""
    parser = _Parser(prog="python -m pipeline.hub", description="Describes and makes modules.", allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    describe = commands.add_parser("describe", help="tell what a module is", allow_abbrev=False)
    describe.add_argument("handle", metavar="HANDLE", help="directory, .tar.gz, http(s)://, gs:// or untrained:NAME")
    describe.add_argument("--module_sha256", metavar="DIGEST", help="refuse the module unless its digest is this")
    describe.add_argument("--json", action="store_true", help="print a JSON object")
    describe.set_defaults(run=_describe)

    export = commands.add_parser(
        "export", help="make a module from a checkpoint of TF-Slim's MobileNetV2", allow_abbrev=False
    )
    export.add_argument("--checkpoint", required=True, metavar="PREFIX", help="e.g. DIR/mobilenet_v2_0.5_160.ckpt")
    export.add_argument("--output", required=True, metavar="PATH", help="new directory or .tar.gz")
    export.add_argument("--depth_multiplier", type=float, help="default: from the checkpoint's name")
    export.add_argument("--image_size", type=int, help="height and width; default: from the checkpoint's name")
    export.add_argument(
        "--averages",
        choices=["auto", "raw", "ema"],
        default="auto",
        help="take the variables' exponential moving averages (ema), the variables themselves (raw), "
        "or the averages if the checkpoint has any (auto, the default)",
    )
    export.add_argument("--classification", action="store_true", help="keep the classifier")
    export.add_argument(
        "--format", choices=["tf1_hub", "tf2"], default="tf1_hub", help="TF1 Hub (default) or TF2 SavedModel"
    )
    export.set_defaults(run=_export)
    return parser


def _describe(args: argparse.Namespace) -> str:
    from pipeline.hub.describe import describe

    description = describe(args.handle, sha256=args.module_sha256)
    return description.to_json() if args.json else str(description)


def _export(args: argparse.Namespace) -> str:
    from pipeline.hub.export import ExportConfig, export

    exported = export(
        ExportConfig(
            checkpoint=args.checkpoint,
            output=args.output,
            depth_multiplier=args.depth_multiplier,
            image_size=args.image_size,
            averages=args.averages,
            classification=args.classification,
            format=args.format,
        )
    )
    network = exported.network
    classes = f", {network.num_classes} classes" if network.num_classes else ""
    count = len(list(network.variables()))
    return "\n".join(
        [
            f"module   {exported.path}",
            f"sha256   {exported.sha256}",
            f"network  {network.name}, {network.num_features} features{classes}",
            f"values   {count} variables, {exported.averaged} of them from moving averages",
        ]
    )


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    try:
        parsed = make_parser().parse_args(args)
        sys.stdout.write(f"{parsed.run(parsed)}\n")
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
