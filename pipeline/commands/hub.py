"""`python -m pipeline.hub`: describes, exports and fine-tunes modules."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pipeline.beam.internals import silence_raised_errors
from pipeline.core.console import CommandParser, print_line, run_command
from pipeline.core.errors import UsageError
from pipeline.core.section_flags import add_flags, section_of
from pipeline.core.settings import ModuleConfig, PreprocessConfig, parse_image_size


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of `python -m pipeline.hub`; the function `run` of its result executes the command."""
    parser = CommandParser(
        prog="python -m pipeline.hub", description="Describes, exports and fine-tunes modules.", allow_abbrev=False
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    describe = commands.add_parser(
        "describe",
        help="print the format, digest, weights and signatures of a module, and what a run would feed it",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    describe.add_argument("handle", metavar="HANDLE", help="as in --module of pipeline.run")
    describe.add_argument("--json", action="store_true", default=False, help="print a JSON object")
    for section in (ModuleConfig, PreprocessConfig):
        add_flags(describe, section, without=["module"])
    describe.set_defaults(run=_describe)

    export = commands.add_parser(
        "export", help="export a TF-Slim checkpoint of MobileNetV2 as a module", allow_abbrev=False
    )
    export.add_argument("--checkpoint", required=True, metavar="PREFIX", help="e.g. DIR/mobilenet_v2_0.5_160.ckpt")
    export.add_argument("--output", required=True, metavar="PATH", help="new directory or .tar.gz")
    export.add_argument("--depth_multiplier", type=float, help="default: from the checkpoint's name")
    export.add_argument("--image_size", type=int, help="height and width; default: from the checkpoint's name")
    export.add_argument(
        "--averages",
        choices=["auto", "raw", "ema"],
        default="auto",
        help="use the exponential moving averages of the variables (ema), their last values (raw), "
        "or the averages if the checkpoint has any (auto, the default)",
    )
    export.add_argument(
        "--classification", action="store_true", help="keep the classifier and add the signature image_classification"
    )
    export.add_argument(
        "--format", choices=["tf1_hub", "tf2"], default="tf1_hub", help="TF1 Hub (default) or TF2 SavedModel"
    )
    export.set_defaults(run=_export)
    _add_finetune(commands.add_parser("finetune", help="fine-tune a module on labelled images", allow_abbrev=False))
    return parser


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--module", required=True, metavar="HANDLE", help="as in --module of pipeline.run")
    add(
        "--train",
        required=True,
        action="append",
        metavar="PATTERN",
        help="TFRecords of tf.train.Examples: file, directory or glob; may be repeated",
    )
    add("--label_feature", required=True, metavar="NAME", help="the feature with the label: one int64 or bytes value")
    add("--output", required=True, metavar="PATH", help="new directory or .tar.gz")
    add(
        "--validation",
        action="append",
        default=[],
        metavar="PATTERN",
        help="TFRecords for validation; may be repeated. Default: a part of --train",
    )
    add("--validation_fraction", type=float, default=0.2, metavar="SHARE", help="size of this part. Default: 0.2")
    add(
        "--image_feature",
        default="image/encoded",
        metavar="NAME",
        help="the feature with the image. Default: image/encoded",
    )
    add(
        "--epochs",
        type=int,
        metavar="N",
        help="epochs with the whole network. Default: enough for about 800 steps, at least 10 and at most 100",
    )
    add(
        "--head_epochs",
        type=int,
        default=3,
        metavar="N",
        help="epochs before that, with the classifier only. Default: 3",
    )
    add("--batch_size", type=int, default=32, metavar="N", help="images in a step. Default: 32")
    add(
        "--learning_rate",
        type=float,
        metavar="RATE",
        help="peak rate for the whole network. Default: 0.003 for an untrained: module, else 0.0003",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of the order, crops and flips of the images. Default: 0")
    add("--module_sha256", metavar="DIGEST", help="refuse a module with another digest")
    add(
        "--allow_unsafe_module",
        action="store_true",
        help="accept a module with operations that reach files, processes or the network",
    )
    add("--signature", metavar="NAME", help="signature to train; default: as pipeline.run chooses it")
    add("--output_key", metavar="NAME", help="output of the signature; default: as pipeline.run chooses it")
    add("--image_size", type=_image_size, metavar="H,W", help="input size of a module that does not state it")
    add("--preprocess", metavar="PRESET_OR_FILE", help="as in pipeline.run; only that of TF Hub's modules is trained")
    parser.set_defaults(run=_finetune)


def _image_size(text: str) -> tuple[int, int]:
    try:
        return parse_image_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _describe(args: argparse.Namespace) -> str:
    from pipeline.hub.describe import describe

    flags = vars(args)
    description = describe(section_of(ModuleConfig, flags, module=args.handle), section_of(PreprocessConfig, flags))
    return description.to_json() if args.json else str(description)


def _export(args: argparse.Namespace) -> str:
    from pipeline.mobilenet.export import ExportConfig, export

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


def _finetune(args: argparse.Namespace) -> str:
    from pipeline.finetune.config import FinetuneConfig
    from pipeline.finetune.run import finetune

    flags = {name: value for name, value in vars(args).items() if name != "run"}
    flags["train"], flags["validation"] = tuple(args.train), tuple(args.validation)
    made = finetune(FinetuneConfig(**flags))
    return "\n".join(
        [
            f"module      {made.path}",
            f"sha256      {made.sha256}",
            f"validation  {made.best.validation_accuracy:.1%} of {made.validation_images} images right, after epoch "
            f"{made.best.epoch} of {made.epochs}",
            f"metrics     {made.metrics}",
            f"curve       {made.curve}",
        ]
    )


def _command(args: Sequence[str]) -> int:
    parsed = make_parser().parse_args(args)
    print_line(str(parsed.run(parsed)))
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    silence_raised_errors()
    return run_command(_command, args)
