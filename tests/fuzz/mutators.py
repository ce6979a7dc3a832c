"""Damaged files from whole ones: pure functions of the bytes and of a random generator.

A mutation knows the form of a file as far as it takes to get past the first check: fields of protobuf
messages, aligned words of flatbuffers, values of JSON, words of text, members of archives, sections with
right checksums.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import PurePath
from random import Random
from typing import Any

from tests.image.container import Container

Mutate = Callable[[bytes, Random], bytes]

NUMBERS = [
    *(0, 1, 2, 3, 7, 8, 16, 64, 127, 128, 255, 256, 1000, 2**16 - 1, 2**16, 10**6, 2**31 - 1, 2**31),
    *(2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
    *(-1, -2, -3, -128, -(2**31), -(2**31) - 1, -(2**62), -(2**63)),
]
FLOATS = ["nan", "inf", "-inf", "1e308", "-1e308", "1e-45", "0.5", "-0.0", "1e999", ".", "1e", "0x1p3"]
TEXTS = [
    *("", " ", "\0", "a\0b", "x", "é", "\U0001f600", "%s%n", "{}", "../x", "/etc/hostname", "/", "."),
    *("a" * 300, "a" * 5000, "None", "-1", "1_000", "²", "٣", "true", "NULL", "\n", "\r", "\u2028", "\ufeff"),
]


def damaged(content: bytes, random: Random) -> bytes:
    """Bits flipped, bytes and 32-bit words replaced, parts cut out, moved, doubled or put in; or cut off."""
    found = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        at, length = random.randrange(len(found) + 1), random.choice((1, 1, 2, 4, 8, 32))
        match random.randrange(8):
            case 0 if found:
                found[at % len(found)] ^= 1 << random.randrange(8)
            case 1:
                found[at : at + 1] = random.randbytes(1)
            case 2:
                at -= at % 4
                found[at : at + 4] = (random.choice(NUMBERS) % 2**64).to_bytes(8, "little")[:4]
            case 3:
                del found[at : at + length]
            case 4:
                found[at:at] = random.randbytes(length)
            case 5:
                found[at:at] = found[at : at + length]
            case 6:
                other = random.randrange(len(found) + 1)
                found[at : at + length] = found[other : other + length]
            case _ if random.random() < 0.3:
                del found[at:]
    return bytes(found)


def text(content: bytes, random: Random, words: Sequence[str] = ()) -> bytes:
    """Words, numbers and signs replaced, left out, doubled and exchanged; sometimes nested very deep."""
    tokens = re.findall(r"[^\W\d]+|\d+|\s|.", content.decode("utf-8", "surrogateescape"), re.S)
    for _ in range(random.choice((1, 1, 2, 4))):
        if not tokens:
            break
        at, other = random.randrange(len(tokens)), random.randrange(len(tokens))
        match random.randrange(7):
            case 0:
                tokens[at] = random.choice([*words, *TEXTS] if random.random() < 0.8 else FLOATS)
            case 1:
                numbers = [i for i, token in enumerate(tokens) if token.isdigit()] or [at]
                tokens[random.choice(numbers)] = str(random.choice(NUMBERS + FLOATS))
            case 2:
                del tokens[at : at + random.choice((1, 1, 3, 9))]
            case 3:
                tokens[at:at] = tokens[other : other + random.choice((1, 3, 9, 27))]
            case 4:
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 5:
                tokens[at] = tokens[other]
            case _ if random.random() < 0.1:
                tokens[at] *= random.choice((100, 3000))
    return "".join(tokens).encode("utf-8", "surrogateescape")


def json_text(content: bytes, random: Random) -> bytes:
    """A value replaced by one of another kind or size, left out, doubled, or exchanged for another."""
    try:
        root = [json.loads(content)]
    except ValueError:
        return text(content, random)
    for _ in range(random.choice((1, 1, 2, 4))):
        places = list(_places(root))
        holder, key = random.choice(places)
        match random.randrange(5):
            case 0 | 1:
                holder[key] = _json_value(random, holder[key])
            case 2 if holder is not root:
                del holder[key]
            case 3 if isinstance(holder, list) and holder is not root:
                holder.insert(key, holder[key])
            case _:
                source, name = random.choice(places)
                holder[key] = json.loads(json.dumps(source[name]))
    dumped = json.dumps(root[0])
    if random.random() < 0.02:  # deeper than any parser goes by recursion
        dumped = dumped.replace(random.choice(re.findall(r"[\w.]+", dumped) or [""]), "[" * 10**5, 1)
    return dumped.encode()


def json_lines(content: bytes, random: Random) -> bytes:
    """One line of a ``.jsonl`` file damaged."""
    lines = content.splitlines()
    at = random.randrange(len(lines))
    lines[at] = json_text(lines[at], random)
    return b"\n".join(lines)


def _places(holder: Any) -> Any:
    """Holder and key of each value, from the outside to the inside."""
    for key in range(len(holder)) if isinstance(holder, list) else list(holder):
        yield holder, key
        if isinstance(holder[key], list | dict):
            yield from _places(holder[key])


def _json_value(random: Random, old: Any) -> Any:
    if isinstance(old, int | float) and random.random() < 0.6:
        return random.choice([*NUMBERS, old + 1, old - 1, -old, float("nan"), float("inf"), 1e308, 0.5])
    if isinstance(old, str) and random.random() < 0.6:
        return random.choice([*TEXTS, old + "x", old[1:], old.upper()])
    return random.choice(
        [None, True, False, 0, -1, 1.5, 2**64, "", "x", [], {}, [[]], [old], {"name": old}, str(old)]
    )


def protobuf(content: bytes, random: Random, words: Sequence[str] = ()) -> bytes:
    """Fields of any message in it replaced, left out, doubled, moved, or given the value of a like field."""
    pool: Pool = {}
    _collect(content, pool, 0)
    for _ in range(random.choice((1, 1, 2, 3))):
        content = _message(content, random, pool, words)
    return content


Field = tuple[int, int, Any]
"""Number, wire type and value: an int, or bytes."""

Pool = dict[tuple[int, int], list[Any]]
"""Values of all fields of a file by number and wire type."""


def fields(content: bytes) -> list[Field] | None:
    """The fields of a message; None where these bytes are none."""
    found, at = list[Field](), 0
    try:
        while at < len(content):
            tag, at = _varint(content, at)
            number, wire = tag >> 3, tag & 7
            value: Any
            if wire == 0:
                value, at = _varint(content, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
                value, at = content[at : at + size], at + size
            elif wire == 2:
                size, at = _varint(content, at)
                value, at = content[at : at + size], at + size
            else:
                return None
            if at > len(content) or not number:
                return None
            found.append((number, wire, value))
    except IndexError:
        return None
    return found


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (content[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if content[at - 1] < 128:
            return value, at


def _to_varint(value: int) -> bytes:
    value, out = value % 2**64, bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def join_fields(found: Sequence[Field]) -> bytes:
    """The message of some fields."""
    out = bytearray()
    for number, wire, value in found:
        out += _to_varint(number << 3 | wire)
        out += _to_varint(value) if wire == 0 else (_to_varint(len(value)) if wire == 2 else b"") + value
    return bytes(out)


def _collect(content: bytes, pool: Pool, depth: int) -> None:
    for number, wire, value in fields(content) or []:
        pool.setdefault((number, wire), []).append(value)
        if wire == 2 and depth < 8:
            _collect(value, pool, depth + 1)


def _message(content: bytes, random: Random, pool: Pool, words: Sequence[str]) -> bytes:
    found = fields(content)
    if not found:
        return _leaf(content, random, words)
    at = random.randrange(len(found))
    number, wire, value = found[at]
    if wire == 2 and random.random() < 0.75:
        found[at] = (number, wire, _message(value, random, pool, words))
        return join_fields(found)
    match random.randrange(6):
        case 0:
            del found[at]
        case 1:
            found.insert(random.randrange(len(found) + 1), found[at])
        case 2:
            other = random.randrange(len(found))
            found[at], found[other] = found[other], found[at]
        case 3:
            found[at] = (number, wire, random.choice(pool.get((number, wire), [value])))
        case 4:
            found[at] = (
                random.choice((number + 1, max(1, number - 1), random.randrange(1, 30))),
                wire,
                value,
            )
        case _:
            found[at] = (number, wire, _other(wire, value, random, words))
    return join_fields(found)


def _other(wire: int, value: Any, random: Random, words: Sequence[str]) -> Any:
    if wire == 0:
        return random.choice([*NUMBERS, value + 1, value - 1, random.randrange(32)]) % 2**64
    if wire == 2:
        return _leaf(value, random, words)
    return struct.pack("<d" if wire == 1 else "<f", random.choice([0, -1, 1e30, float("nan"), float("inf")]))


def _leaf(content: bytes, random: Random, words: Sequence[str]) -> bytes:
    """Bytes that are text, packed numbers or an array."""
    if content.isascii() and random.random() < 0.7:
        return random.choice(
            [*words, *TEXTS] if random.random() < 0.7 else [content.decode() + "x", "y"]
        ).encode()
    if random.random() < 0.3:
        return b"".join(_to_varint(random.choice(NUMBERS)) for _ in range(random.randrange(4)))
    return damaged(content, random)


def aligned(content: bytes, random: Random) -> bytes:
    """Aligned words of 8 to 64 bits replaced by extreme ones, neighbours, or other words: flatbuffers."""
    found = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        size = random.choice((1, 2, 4, 4, 4, 8))
        at, other = (random.randrange(max(1, len(found) // size)) * size for _ in range(2))
        old = int.from_bytes(found[at : at + size], "little")
        near = old + random.choice((-8, -4, -2, -1, 1, 2, 4, 8))
        copied = int.from_bytes(found[other : other + size], "little")
        value = random.choice((near, copied, random.choice(NUMBERS), random.randrange(200)))
        found[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(found)


def npy(content: bytes, random: Random) -> bytes:
    """The header of a ``.npy`` file as text, or its bytes."""
    if content[:6] != b"\x93NUMPY" or random.random() < 0.3:
        return damaged(content, random)
    size = int.from_bytes(content[8:10], "little")
    header = text(content[10 : 10 + size], random, ("object", "|O", "<U9999999", ">f8", "V0", "(3,)", "()"))
    return content[:8] + (len(header) % 65536).to_bytes(2, "little") + header + content[10 + size :]


def archive(content: bytes, random: Random) -> bytes:
    """A member of a zip file damaged as its own kind is, left out or renamed, with a right checksum."""
    members: list[tuple[str, bytes]] = []
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(content)) as file:
        members = [(one.filename, file.read(one)) for one in file.infolist()]
    if not members:
        return damaged(content, random)
    at = random.randrange(len(members))
    name, data = members[at]
    match random.randrange(12):
        case 0:
            del members[at]
        case 1:
            members[at] = (random.choice(["x.npy", "../x", "x/y", name + "x", "é", members[0][0]]), data)
        case 2:
            members[at] = (name, random.choice(members)[1])
        case _:
            members[at] = (name, for_name(name)(data, random))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in members:
            with suppress(UserWarning):  # of doubled names
                file.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def sections(content: bytes, random: Random) -> bytes:
    """A section of an image or stage damaged as its kind is; the checksums are right."""
    container = Container(content)
    part = random.choice(container.parts)
    if random.random() < 0.1:
        key = random.choice(("type", "flags", "record_size"))
        part.entry[key] = random.choice([0, 1, 2, 3, 8, 2**31 - 1, 2**32 - 1])
        return container.dump()
    data = bytes(part.data)
    with suppress(ValueError):
        json.loads(data)
        part.data = bytearray(json_text(data, random))
        return container.dump()
    is_message = len(data) > 40 and fields(data) is not None
    part.data = bytearray((protobuf if is_message else random.choice((aligned, damaged)))(data, random))
    return container.dump()


_BY_SUFFIX: dict[str, Mutate] = {
    **dict.fromkeys((".onnx", ".pb", ".caffemodel", ".pdmodel"), protobuf),
    **dict.fromkeys((".ini", ".yaml", ".toml", ".prototxt", ".txt", ".py"), text),
    ".json": json_text,
    ".jsonl": json_lines,
    **dict.fromkeys((".img", ".sim"), sections),
    **dict.fromkeys((".npz", ".keras", ".pt", ".pt2", ".pth"), archive),
    ".npy": npy,
    ".tflite": aligned,
}


def for_name(name: str) -> Mutate:
    """What damages a file of this name in its own way."""
    return _BY_SUFFIX.get(PurePath(name).suffix, damaged)


def mutate(files: dict[str, bytes], random: Random, words: Sequence[str] = ()) -> dict[str, bytes]:
    """One of the files that make up a model damaged; ``words`` are names that its format knows."""
    name = random.choice(sorted(files))
    kind = damaged if random.random() < 0.1 else for_name(name)
    content = files[name]
    found = kind(content, random, words) if kind in (protobuf, text) else kind(content, random)  # type: ignore[call-arg]
    return {**files, name: found}
