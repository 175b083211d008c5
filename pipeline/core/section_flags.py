"""The flags of a section of the settings, for argparse."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from pipeline.core.errors import UsageError

_T = TypeVar("_T")


class Collect(argparse.Action):
    """Collects the values of a repeatable flag into a tuple."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Adds a value."""
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), values))


class SwitchOrText(argparse.BooleanOptionalAction):
    """A flag that is a switch, or has a text: `--name`, `--no-name`, `--name=TEXT`."""

    def __init__(self, *, type: Callable[[str], Any], metavar: str | None = None, **options: Any) -> None:  # noqa: A002
        super().__init__(**options)
        self.nargs, self.type, self.metavar = "?", type, metavar

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Sets the text, or the switch if there is none."""
        if values is None:
            super().__call__(parser, namespace, values, option_string)
        elif option_string == self.option_strings[0]:
            setattr(namespace, self.dest, values)
        else:
            parser.error(f"argument {option_string}: takes no value")


def _converter(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Returns `parse` with its `UsageError` turned into the exception whose text argparse keeps."""

    def convert(text: str) -> _T:
        try:
            return parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    convert.__name__ = {int: "whole number", float: "number"}.get(cast(Any, parse), parse.__name__)
    return convert


def add_flags(group: argparse._ActionsContainer, section: type[Any], *, without: Sequence[str] = ()) -> None:
    """Adds the flags of a section of the settings to a parser.

    Args:
      group: a parser, or a group of one, whose `argument_default` is `SUPPRESS`.
      section: a class of `pipeline.core.settings`.
      without: fields to leave out.
    """
    for item in dataclasses.fields(section):
        if item.name in without:
            continue
        flag = item.metadata
        name, text = f"--{item.name}", flag["help"].replace("%", "%%")
        if item.type == "bool" or str(item.type) == "bool | None":
            group.add_argument(name, help=text, action=argparse.BooleanOptionalAction)
            continue
        options: dict[str, Any] = {
            "help": text,
            "metavar": flag["metavar"],
            "type": _converter(flag["parse"]),
        }
        if flag["is_switch"]:
            options["action"] = SwitchOrText
        if flag["choices"]:
            options |= {"choices": flag["choices"], "metavar": None}
        if flag["repeat"]:
            options["action"] = Collect
        group.add_argument(name, **options)


def section_of(section: type[_T], values: Mapping[str, Any], **others: Any) -> _T:
    """Returns a section of the settings, with those of some parsed values that are its own.

    Args:
      section: a class of `pipeline.core.settings`.
      values: by flag name.
      **others: more values.

    Raises:
      UsageError: the section refuses a value.
    """
    fields: Sequence[dataclasses.Field[Any]] = dataclasses.fields(cast(Any, section))
    return section(**{item.name: values[item.name] for item in fields if item.name in values}, **others)
