"""The container that images and stages share: header, section table, sections with checksums."""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm_ipu.base.errors import ImageError
from tvm_ipu.base.files import advice, whole_file
from tvm_ipu.base.program import Pieces
from tvm_ipu.image import schema

DAMAGED = "the file is damaged: compile the model again, or copy the file again"
Sections = Mapping[schema.SectionType, bytes | Pieces]
"""Contents of the sections that there are."""


@dataclass(frozen=True)
class Section:
    """One section of a file.

    Attributes:
        name: ``code``, ``weights`` ...; ``type <n>`` for one of a newer version, which is skipped.
        offset: In the file, bytes.
        size: Bytes.
        crc32: Checksum that the file records.
        verified: That checksum was compared with the bytes.
    """

    name: str
    offset: int
    size: int
    crc32: int
    verified: bool


@dataclass(frozen=True)
class Container:
    """A file whose header and checksums agree.

    Attributes:
        path: The file.
        data: All its bytes.
        header: Fields of its header.
        entries: Fields of the section table by type.
        sections: The same for people, in file order.
    """

    path: Path
    data: memoryview
    header: dict[str, int]
    entries: dict[int, dict[str, int]]
    sections: tuple[Section, ...]

    def section(self, kind: schema.SectionType) -> memoryview:
        """Bytes of a section; empty where there is none."""
        entry = self.entries.get(kind)
        return self.data[entry["offset"] : entry["offset"] + entry["size"]] if entry else self.data[:0]

    def error(self, what: str) -> ImageError:
        """The error to raise where the content is not what the checksums promise."""
        return ImageError(f"{self.path}: {what}", DAMAGED)


def read_kind(path: Path) -> int | None:
    """What a file holds, a ``schema.Kind`` where it is a known one; None where it is no container at all.

    Raises:
        ImageError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(schema.HEADER.size)
    except OSError as err:
        raise ImageError(f"cannot read '{path}': {err.strerror or err}") from err
    if start[: len(schema.MAGIC_BYTES)] != schema.MAGIC_BYTES:
        return None
    return schema.HEADER.unpack(start.ljust(schema.HEADER.size, b"\0"))["kind"]


def read_container(
    path: Path,
    what: str,
    kinds: Collection[schema.Kind],
    specs: Sequence[schema.SectionSpec],
    verify: str = "",
) -> Container:
    """Read and check header, section table and checksums.

    Args:
        path: The file.
        what: What is looked for, with its article, such as ``an offline image``.
        kinds: What the file may hold.
        specs: Sections that the reader knows.
        verify: Name of a section to check although it is not checked by default.

    Raises:
        ImageError: The file is missing, something else, of a newer version or damaged.
    """
    if path.exists() and not path.is_file():
        raise ImageError(f"{path}: not a regular file")
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < schema.HEADER.size:
                raise ImageError(f"{path}: too short for {what}", DAMAGED)
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as err:
        raise ImageError(f"{path}: cannot read the {what.split()[-1]}: {err.strerror or err}") from err
    return parse_container(path, data, what, kinds, specs, verify)


def parse_container(
    path: Path,
    data: memoryview,
    what: str,
    kinds: Collection[schema.Kind],
    specs: Sequence[schema.SectionSpec],
    verify: str = "",
) -> Container:
    """``read_container`` of a file's bytes; ``path`` is what messages call it.

    Raises:
        ImageError: As for ``read_container``.
    """
    header = _header(path, data, what, kinds)
    return _with_sections(Container(path, data, header, {}, ()), specs, verify)


def _header(path: Path, data: memoryview, what: str, kinds: Collection[schema.Kind]) -> dict[str, int]:
    if data[: len(schema.MAGIC_BYTES)] != schema.MAGIC_BYTES:
        raise ImageError(f"{path}: not {what}", f"make one with '{_MAKER[min(kinds)]}'")
    header = schema.HEADER.unpack(data)
    found = f"{header['version_major']}.{header['version_minor']}"
    known = f"{schema.VERSION_MAJOR}.{schema.VERSION_MINOR}"
    if header["version_major"] != schema.VERSION_MAJOR:
        raise ImageError(
            f"{path}: image format {found}, but this tvm_ipu reads {known}",
            "use the tvm_ipu that made it, or compile the model again",
        )
    if header["incompatible_flags"] & ~schema.KNOWN_INCOMPATIBLE_FLAGS:
        raise ImageError(f"{path}: format {found} uses a feature newer than {known}", "update tvm_ipu")
    if header["kind"] not in kinds:
        name = _NAMES.get(header["kind"], "something newer")
        raise ImageError(f"{path}: is {name}, not {what}", f"make one with '{_MAKER[min(kinds)]}'")
    if header["file_size"] != len(data):
        raise ImageError(f"{path}: has {len(data)} bytes, but its header says {header['file_size']}", DAMAGED)
    return header


_NAMES = {
    int(schema.Kind.IMAGE): "an offline image",
    int(schema.Kind.FLOAT_STAGE): "a float stage",
    int(schema.Kind.FIXED_STAGE): "a fixed stage",
}

_MAKER = {
    schema.Kind.IMAGE: "tvm-ipu compile",
    schema.Kind.FLOAT_STAGE: "tvm-ipu convert",
    schema.Kind.FIXED_STAGE: "tvm-ipu calibrate",
}


def _with_sections(file: Container, specs: Sequence[schema.SectionSpec], verify: str) -> Container:
    header, data = file.header, file.data
    known = {int(spec.type): spec for spec in specs}
    begin, count = header["table_offset"], header["section_count"]
    end = begin + count * schema.SECTION.size
    if count > schema.MAX_SECTIONS or end > len(data):
        raise file.error("section table leaves the file")
    covered = data[: schema.HEADER.offset_of("crc32")]
    if zlib.crc32(data[begin:end], zlib.crc32(covered)) != header["crc32"]:
        raise file.error("checksum of the header is wrong")
    entries: dict[int, dict[str, int]] = {}
    sections, previous_end = [], end
    for offset in range(begin, end, schema.SECTION.size):
        entry = schema.SECTION.unpack(data, offset)
        spec = known.get(entry["type"])
        name = spec.name if spec else f"type {entry['type']}"
        if spec is None and entry["flags"] & schema.SectionFlag.REQUIRED:
            raise ImageError(f"{file.path}: needs section {name} of a newer version", "update tvm_ipu")
        if entry["offset"] < previous_end or entry["offset"] + entry["size"] > len(data):
            raise file.error(f"section {name} leaves the file or overlaps another")
        if entry["type"] in entries:
            raise file.error(f"section {name} appears twice")
        previous_end = entry["offset"] + entry["size"]
        verified = spec is not None and (spec.verified or spec.name == verify)
        if verified and zlib.crc32(data[entry["offset"] : previous_end]) != entry["crc32"]:
            raise file.error(f"checksum of section {name} is wrong")
        entries[entry["type"]] = entry
        sections.append(Section(name, entry["offset"], entry["size"], entry["crc32"], verified))
    missing = [spec.name for spec in specs if spec.required and spec.type not in entries]
    if missing:
        raise file.error(f"section {missing[0]} is missing")
    return Container(file.path, data, header, entries, tuple(sections))


def write_container(
    path: Path,
    kind: schema.Kind,
    specs: Sequence[schema.SectionSpec],
    sections: Sections,
) -> None:
    """Write a file of ``sections``, laid out in the order of ``specs``; it appears whole or not at all.

    Raises:
        ImageError: The file cannot be written.
    """
    noun = "image" if kind == schema.Kind.IMAGE else "stage"
    try:
        with whole_file(path, sync=True) as file:
            for part in container_parts(kind, specs, sections).parts:
                file.write(part)
    except OSError as err:
        raise ImageError(f"{path}: cannot write the {noun}: {err.strerror or err}", advice(err)) from err


def container_parts(kind: schema.Kind, specs: Sequence[schema.SectionSpec], sections: Sections) -> Pieces:
    """Bytes of a file: header, section table, then every section behind its padding."""
    specs = [spec for spec in specs if spec.type in sections]
    end = schema.HEADER.size + schema.SECTION.size * len(specs)
    table, body = bytearray(), Pieces()
    for spec in specs:
        data = sections[spec.type]
        offset = -(-end // spec.alignment) * spec.alignment
        body.append(bytes(offset - end))
        checksum = 0
        for part in data.parts if isinstance(data, Pieces) else [data]:
            body.append(part)
            checksum = zlib.crc32(part, checksum)
        end = offset + len(data)
        table += schema.SECTION.pack(
            type=spec.type,
            flags=schema.SectionFlag.REQUIRED if spec.required else 0,
            offset=offset,
            size=len(data),
            record_size=spec.record.size if spec.record else 0,
            crc32=checksum,
        )
    header = schema.HEADER.pack(
        magic=schema.MAGIC,
        version_major=schema.VERSION_MAJOR,
        version_minor=schema.VERSION_MINOR,
        kind=kind,
        file_size=end,
        table_offset=schema.HEADER.size,
        section_count=len(specs),
    )
    covered = header[: schema.HEADER.offset_of("crc32")]
    crc = zlib.crc32(bytes(table), zlib.crc32(covered))
    found = Pieces()
    for part in (covered, struct.pack("<I", crc), bytes(table), *body.parts):
        found.append(part)
    return found
