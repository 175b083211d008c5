"""Protobuf message classes from a declaration in the source code: no compiler, no generated files.

The classes live in a separate descriptor pool. Their names therefore do not conflict with equal names of another
package, such as TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

_STATEMENT = re.compile(
    r"message (?P<message>\w+) {|oneof (?P<oneof>\w+) {|(?P<end>})|"
    r"(?P<repeated>repeated )?(map<string, (?P<value>\w+)>|(?P<type>\w+)) (?P<name>\w+) = (?P<number>\d+);"
)


def message_classes(package: str, declaration: str) -> Mapping[str, Any]:
    """Returns the message classes by name.

    A parsed message keeps undeclared fields as unknown fields.

    Args:
      package: the messages' package.
      declaration: top-level messages in the language of `.proto` files, version 3, limited to scalars, messages,
        `repeated`, `map<string, …>` and `oneof`; without comments.

    Raises:
      ValueError: the declaration has an unsupported statement.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    text = " ".join(declaration.split())
    if rest := _STATEMENT.sub("", text).strip():
        raise ValueError(f"the declaration of {package} has {rest!r}; expected messages and fields")
    message = DescriptorProto()
    in_oneof = False
    for statement in _STATEMENT.finditer(text):
        if statement["message"]:
            message = file.message_type.add(name=statement["message"])
        elif statement["oneof"]:
            message.oneof_decl.add(name=statement["oneof"])
            in_oneof = True
        elif statement["end"]:
            in_oneof = False
        else:
            field = _add_field(package, message, statement)
            if in_oneof:
                field.oneof_index = len(message.oneof_decl) - 1
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes = message_factory.GetMessageClassesForFiles([file.name], pool)
    return {name.removeprefix(f"{package}."): message_class for name, message_class in classes.items()}


def _add_field(package: str, message: DescriptorProto, statement: re.Match[str]) -> FieldDescriptorProto:
    name, kind = statement["name"], statement["type"]
    if value := statement["value"]:
        # On the wire, a map is a repeated message of key and value.
        entry = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        nested = message.nested_type.add(name=entry, options=descriptor_pb2.MessageOptions(map_entry=True))
        _set_type(package, nested.field.add(name="key", number=1), "string")
        _set_type(package, nested.field.add(name="value", number=2), value)
        kind = f"{message.name}.{entry}"
    field = message.field.add(name=name, number=int(statement["number"]))
    _set_type(package, field, kind)
    if statement["repeated"] or value:
        field.label = FieldDescriptorProto.LABEL_REPEATED
    return field


def _set_type(package: str, field: FieldDescriptorProto, kind: str) -> None:
    field.label = FieldDescriptorProto.LABEL_OPTIONAL
    scalar = getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}", None)
    field.type = FieldDescriptorProto.TYPE_MESSAGE if scalar is None else scalar
    if scalar is None:
        field.type_name = f".{package}.{kind}"
