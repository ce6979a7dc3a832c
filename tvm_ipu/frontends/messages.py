"""Protobuf message classes from a table of their fields, without generated code.

    NetParameter: name=1:string input*=3:string layer*=100:LayerParameter
    PoolingParameter: pool=1:MAX|AVE kernel_size=2:uint32 stride=3:uint32:1

A line is a message; a field is name, ``*`` where it repeats, number, type and maybe default. A type is a
scalar, a message of the table, or the names of an enumeration in the order of their numbers.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

_FIELD = re.compile(r"(\w+)(\*?)=(\d+):([\w|]+)(?::(\S+))?")


def message_classes(table: str, package: str) -> dict[str, Any]:
    """The classes of all messages in ``table`` by name; fields that it lacks are skipped when reading.

    Args:
        table: Lines as above; a line that is indented further goes on with the one before.
        package: A name of its own.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    names = []
    for line in re.sub(r"\n\s+", " ", table.strip()).splitlines():
        name, _, fields = line.partition(":")
        names.append(name)
        message = file.message_type.add(name=name)
        for one in fields.split():
            _add_field(message, one, f".{package}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"{package}.{name}") for name in names)
    return {descriptor.name: message_factory.GetMessageClass(descriptor) for descriptor in found}


def _add_field(message: Any, text: str, scope: str) -> None:
    match = _FIELD.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is no field")
    name, repeated, number, kind, default = match.groups()
    proto = descriptor_pb2.FieldDescriptorProto
    label = proto.LABEL_REPEATED if repeated else proto.LABEL_OPTIONAL
    field = message.field.add(name=name, number=int(number), label=label)
    if default is not None:
        field.default_value = default
    if "|" in kind:
        values = message.enum_type.add(name=f"{name}_names")
        for value, label in enumerate(kind.split("|")):
            values.value.add(name=label, number=value)
        field.type, field.type_name = proto.TYPE_ENUM, f"{scope}.{message.name}.{values.name}"
    elif kind[0].isupper():
        field.type, field.type_name = proto.TYPE_MESSAGE, f"{scope}.{kind}"
    else:
        field.type = proto.Type.Value(f"TYPE_{kind.upper()}")
