"""The configuration of a run, from Python, from flags or from a YAML file."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.core.console import CommandParser
from pipeline.core.errors import UsageError
from pipeline.core.section_flags import Collect, SwitchOrText, add_flags
from pipeline.core.settings import (
    TIMESTAMP_COLUMN,
    DecodeConfig,
    EngineConfig,
    ExecutionConfig,
    InputConfig,
    ModuleConfig,
    OutputConfig,
    PreprocessConfig,
)
from pipeline.core.suggestions import closest

_T = TypeVar("_T")


@dataclass(frozen=True)
class RunConfig:
    """The configuration of one run.

    Attributes:
      input: the inputs, and the features to read from them.
      module: the network that embeds the images.
      output: directory and format of the vectors.
      decode: how encoded images become pixels.
      preprocess: how pixels become the network's input.
      engine: the inference engine, and the scale of the vectors.
      execution: waves, limits and resuming.
      beam_args: Beam's own options, as on a command line, such as `--runner=DirectRunner`.
    """

    input: InputConfig
    module: ModuleConfig
    output: OutputConfig
    decode: DecodeConfig = DecodeConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    engine: EngineConfig = EngineConfig()
    execution: ExecutionConfig = ExecutionConfig()
    beam_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses settings that contradict each other.

        Raises:
          UsageError: two settings contradict each other.
        """
        if TIMESTAMP_COLUMN in self.input.passthrough and "parquet" in self.output.output_format:
            raise UsageError(
                f"--passthrough names '{TIMESTAMP_COLUMN}', which every row of a Parquet file already has; leave it out"
            )

    @property
    def writes_template(self) -> bool:
        """Whether the job is written to a file, which Dataflow starts later."""
        return any(option_name(arg) == "template_location" for arg in self.beam_args)

    @classmethod
    def from_args(cls, args: Sequence[str]) -> RunConfig:
        """Returns the configuration from command-line arguments and their `--config` file.

        Raises:
          UsageError: an argument or the file cannot be honoured.
          SystemExit: the arguments ask for help.
        """
        parser = make_parser()
        given, beam_args = parser.parse_known_args(args)
        values = dict(vars(given))
        path = values.pop("config", None)
        if path is not None:
            file_values, file_beam_args = _read_config_file(parser, path)
            values = {**file_values, **values}
            beam_args = _override(file_beam_args, beam_args)
        _check_misspelt(values, beam_args)
        sections: dict[str, Any] = {
            name: section(**_required(section, {f: values[f] for f in _field_names(section) if f in values}))
            for name, section in _SECTIONS.items()
        }
        return cls(**sections, beam_args=tuple(beam_args))

    @classmethod
    def from_flags(cls, **flags: Any) -> RunConfig:
        """Returns the configuration with the given flags, as Python values; other names are Beam options.

        `RunConfig.from_flags(input="photos", module="m.tar.gz", output="out", runner="DirectRunner")`

        Raises:
          UsageError: a value cannot be honoured.
        """
        return cls.from_args(_to_args(make_parser(), flags))


_SECTIONS: Mapping[str, type[Any]] = {
    "input": InputConfig,
    "module": ModuleConfig,
    "output": OutputConfig,
    "decode": DecodeConfig,
    "preprocess": PreprocessConfig,
    "engine": EngineConfig,
    "execution": ExecutionConfig,
}
_REQUIRED_EMPTY: Mapping[str, Any] = {"input": (), "module": "", "output": ""}


def _field_names(section: type[Any]) -> list[str]:
    return [f.name for f in dataclasses.fields(section)]


def _required(section: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Adds an empty value for each missing required field; the section refuses it with its own message."""
    missing = {name: empty for name, empty in _REQUIRED_EMPTY.items() if name in _field_names(section)}
    return {**missing, **values}


_DESCRIPTION = """\
Turns images into embeddings. Any option of Apache Beam is accepted beside these flags.

examples:
  python -m pipeline.run --input=photos --module=untrained:mobilenet_v2_050_160 --output=embeddings
  python -m pipeline.run --input='gs://bucket/*.tfrecord' --module=module.tar.gz --output=gs://bucket/embeddings \\
    --config=configs/dataflow.yaml"""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of `python -m pipeline.run`; its result lacks the flags that were not given."""
    parser = CommandParser(
        prog="python -m pipeline.run",
        usage="python -m pipeline.run --input=PATTERN --module=HANDLE --output=DIR [FLAG...]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        metavar="FILE.yaml",
        help="YAML file whose keys are flag names; the command line overrides it",
    )
    for section in _SECTIONS.values():
        add_flags(parser.add_argument_group((section.__doc__ or "").splitlines()[0].rstrip(".")), section)
    return parser


def _to_args(parser: argparse.ArgumentParser, values: Mapping[str, Any]) -> list[str]:
    """Returns the command-line arguments that are equivalent to a mapping from flag names to plain values."""
    actions = {action.dest: action for action in parser._actions}
    args: list[str] = []
    for name, value in values.items():
        action = actions.get(name)
        if isinstance(action, argparse._HelpAction):
            raise UsageError(f"'{name}' is not a setting of a run; leave it out")
        if value is None:
            continue
        if isinstance(value, bool):
            if action is not None and not isinstance(action, argparse.BooleanOptionalAction):
                raise UsageError(f"{name}: {str(value).lower()} arrived where a value was expected")
            # A false Beam switch is left out: not every Beam switch has a `--no-` form.
            args += [f"--{name}"] if value else [f"--no-{name}"] if action else []
        elif isinstance(action, argparse.BooleanOptionalAction) and not isinstance(action, SwitchOrText):
            raise UsageError(f"{name}: {value!r} arrived where true or false was expected")
        elif isinstance(value, (list, tuple)):
            items = [_to_text(name, item) for item in value]
            args += [f"--{name}={item}" for item in items] if _repeats(action) else [f"--{name}={','.join(items)}"]
        else:
            args.append(f"--{name}={_to_text(name, value)}")
    return args


def _repeats(action: argparse.Action | None) -> bool:
    """Returns whether a list is given by repeating the flag; all Beam options with list values work so."""
    return action is None or isinstance(action, Collect)


def _to_text(name: str, value: Any) -> str:
    if isinstance(value, (str, int, float, os.PathLike, datetime.date)) and not isinstance(value, bool):
        try:
            return str(value)
        except ValueError:  # Python does not format integers of thousands of digits
            raise UsageError(f"{name}: a number with too many digits arrived") from None
    raise UsageError(f"{name}: a {type(value).__name__} arrived where a value or a list of values was expected")


def _read_config_file(parser: argparse.ArgumentParser, path: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the values of this package's flags in a YAML file, and the file's Beam options as arguments."""
    import yaml

    try:
        loaded = yaml.safe_load(Path(os.path.expanduser(path)).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"--config={path} cannot be read: {reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"--config={path} is not YAML: {' '.join(str(error).split())}") from None
    if loaded is None:
        return {}, []
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise UsageError(f"--config={path} must hold one mapping from flag names to values, like 'input: photos/'")
    if "config" in loaded:
        raise UsageError(f"--config={path} names another 'config'; only one file is allowed")
    for key in loaded:
        if not re.fullmatch(r"[A-Za-z]\w*", key):
            raise UsageError(f"--config={path}: '{key}' is not a flag name; write it without dashes")
    try:
        values, beam_args = parser.parse_known_args(_to_args(parser, loaded))
    except UsageError as error:
        raise UsageError(f"--config={path}: {error}") from None
    return dict(vars(values)), beam_args


def option_name(arg: str) -> str | None:
    """Returns the name in an argument such as `--name=value` or `--name`, or None for a value."""
    match = re.match(r"--([^=]+)", arg)
    return match[1] if match else None


def _override(file_args: Sequence[str], command_args: Sequence[str]) -> list[str]:
    """Returns the file's options that the command line does not name, then the command line's."""
    named = {option_name(arg) for arg in command_args}
    return [*(arg for arg in file_args if option_name(arg) not in named), *command_args]


def _check_misspelt(values: Mapping[str, Any], beam_args: Iterable[str]) -> None:
    """Refuses a misspelt flag where a required one is missing; other unknown arguments may be Beam's.

    Raises:
      UsageError: an argument is like the name of a missing flag. No option of Beam is.
    """
    missing = [name for name in _REQUIRED_EMPTY if not values.get(name)]
    for arg in beam_args:
        if closest(option_name(arg) or "", missing):
            raise UsageError(describe_unknown_arg(arg))


def describe_unknown_arg(arg: str, beam_flags: Iterable[str] = ()) -> str:
    """Returns the text about an argument that neither this package nor Beam knows.

    Args:
      arg: the argument.
      beam_flags: Beam's own flags, with their dashes.
    """
    known = [flag for action in make_parser()._actions for flag in action.option_strings]
    name = option_name(arg)
    if not arg.startswith("-"):
        return f"unknown argument '{arg}'; put a pattern with * in quotes, and each value behind its own flag"
    meant = closest(f"--{name}", [*known, *beam_flags]) if name else None
    return f"unknown argument '{arg}'; " + (f"did you mean {meant}?" if meant else "see --help, and Beam's own options")
