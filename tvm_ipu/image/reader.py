"""Read an offline image back, for ``inspect`` and for tests. Running one is the C runtime's work."""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from tvm_ipu.base.errors import ImageError
from tvm_ipu.base.program import Arg, Call, Plan, Space
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.image import schema

_DAMAGED = "the file is damaged: compile the model again, or copy the file again"


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
class ImageTarget:
    """The machine an image is for; the attributes are those of ``base.target.Target``."""

    name: str
    arch: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    requires: tuple[str, ...]
    numerics: str
    pointer_bits: int


@dataclass(frozen=True)
class ImageInfo:
    """What an image holds.

    Attributes:
        version: Major and minor number of the format.
        file_size: Bytes of the whole file.
        symbols: Kernel name -> byte offset in the code.
    """

    path: Path
    version: tuple[int, int]
    file_size: int
    target: ImageTarget
    plans: tuple[Plan, ...]
    symbols: dict[str, int]
    sections: tuple[Section, ...]
    metadata: dict[str, object]

    def section_size(self, name: str) -> int:
        """Bytes of the section ``name``; 0 where there is none."""
        return sum(s.size for s in self.sections if s.name == name)


def is_image(path: Path) -> bool:
    """Whether the first bytes of a file are those of an image.

    Raises:
        ImageError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(schema.MAGIC_BYTES)) == schema.MAGIC_BYTES
    except OSError as err:
        raise ImageError(f"cannot read '{path}': {err.strerror or err}") from err


def read_image(path: str | os.PathLike[str], verify_weights: bool = False) -> ImageInfo:
    """Read and check the image at ``path``; the weights are looked at only with ``verify_weights``.

    Raises:
        ImageError: The file is missing, not an image, of a newer version or damaged.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ImageError(f"{path}: not a regular file")
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < schema.HEADER.size:
                raise ImageError(f"{path}: too short for an offline image", _DAMAGED)
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as err:
        raise ImageError(f"{path}: cannot read the image: {err.strerror or err}") from err
    return _Reader(path, data).read(verify_weights)


class _Reader:
    """Decodes one file. ``data`` is the whole file."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self._path, self._data = path, data
        self._sections: dict[int, dict[str, int]] = {}
        self._strings = b""

    def read(self, verify_weights: bool) -> ImageInfo:
        header = self._header()
        sections = self._section_table(header, verify_weights)
        self._strings = bytes(self._section_bytes("STRINGS"))
        try:
            return ImageInfo(
                path=self._path,
                version=(header["version_major"], header["version_minor"]),
                file_size=header["file_size"],
                target=self._target(),
                plans=self._plans(),
                symbols={
                    self._string(k["name"]): k["offset"] for k in self._records(schema.KERNEL, "KERNELS")
                },
                sections=sections,
                metadata=self._metadata(),
            )
        except (IndexError, ValueError, KeyError, struct.error) as err:
            raise self._error(f"the checksums agree but the tables do not ({err})") from err

    def _error(self, what: str) -> ImageError:
        return ImageError(f"{self._path}: {what}", _DAMAGED)

    def _header(self) -> dict[str, int]:
        if self._data[: len(schema.MAGIC_BYTES)] != schema.MAGIC_BYTES:
            raise ImageError(f"{self._path}: not an offline image", "make one with 'tvm-ipu compile'")
        header = schema.HEADER.unpack(self._data)
        found = f"{header['version_major']}.{header['version_minor']}"
        known = f"{schema.VERSION_MAJOR}.{schema.VERSION_MINOR}"
        if header["version_major"] != schema.VERSION_MAJOR:
            raise ImageError(
                f"{self._path}: image format {found}, but this tvm_ipu reads {known}",
                "use the tvm_ipu that made it, or compile the model again",
            )
        if header["incompatible_flags"] & ~schema.KNOWN_INCOMPATIBLE_FLAGS:
            raise ImageError(
                f"{self._path}: format {found} uses a feature newer than {known}", "update tvm_ipu"
            )
        if header["kind"] != schema.Kind.IMAGE:
            raise ImageError(f"{self._path}: holds no offline image (kind {header['kind']})")
        if header["file_size"] != len(self._data):
            raise self._error(f"has {len(self._data)} bytes, but its header says {header['file_size']}")
        return header

    def _section_table(self, header: dict[str, int], verify_weights: bool) -> tuple[Section, ...]:
        begin, count = header["table_offset"], header["section_count"]
        end = begin + count * schema.SECTION.size
        if count > schema.MAX_SECTIONS or end > len(self._data):
            raise self._error("section table leaves the file")
        covered = self._data[: schema.HEADER.offset_of("crc32")]
        if zlib.crc32(self._data[begin:end], zlib.crc32(covered)) != header["crc32"]:
            raise self._error("checksum of the header is wrong")
        found, previous_end = [], end
        for offset in range(begin, end, schema.SECTION.size):
            entry = schema.SECTION.unpack(self._data, offset)
            spec = schema.section_spec(entry["type"])
            name = spec.name if spec else f"type {entry['type']}"
            if spec is None and entry["flags"] & schema.SectionFlag.REQUIRED:
                raise ImageError(f"{self._path}: needs section {name} of a newer version", "update tvm_ipu")
            if entry["offset"] < previous_end or entry["offset"] + entry["size"] > len(self._data):
                raise self._error(f"section {name} leaves the file or overlaps another")
            if entry["type"] in self._sections:
                raise self._error(f"section {name} appears twice")
            previous_end = entry["offset"] + entry["size"]
            verify = spec is not None and (spec.verified or (verify_weights and spec.name == "weights"))
            if verify and zlib.crc32(self._data[entry["offset"] : previous_end]) != entry["crc32"]:
                raise self._error(f"checksum of section {name} is wrong")
            self._sections[entry["type"]] = entry
            found.append(Section(name, entry["offset"], entry["size"], entry["crc32"], verify))
        missing = [s.name for s in schema.SECTIONS if s.required and s.type not in self._sections]
        if missing:
            raise self._error(f"section {missing[0]} is missing")
        return tuple(found)

    def _section_bytes(self, name: str) -> memoryview:
        entry = self._sections.get(schema.SectionType[name])
        return self._data[entry["offset"] : entry["offset"] + entry["size"]] if entry else self._data[:0]

    def _records(self, record: schema.Record, section: str) -> list[dict[str, int]]:
        data = self._section_bytes(section)
        stride = self._sections[schema.SectionType[section]]["record_size"]
        if stride < record.size or len(data) % stride:
            raise ValueError(f"section {section.lower()} has records of {stride} bytes")
        return [record.unpack(data, at) for at in range(0, len(data), stride)]

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _names(self, offset: int) -> tuple[str, ...]:
        return tuple(filter(None, self._string(offset).split(",")))

    def _target(self) -> ImageTarget:
        (row,) = self._records(schema.TARGET, "TARGET")
        return ImageTarget(
            name=self._string(row["name"]),
            arch=self._string(row["arch"]),
            triple=self._string(row["triple"]),
            cpu=self._string(row["cpu"]),
            features=self._names(row["features"]),
            requires=self._names(row["requires"]),
            numerics=self._string(row["numerics"]),
            pointer_bits=row["pointer_bits"],
        )

    def _plans(self) -> tuple[Plan, ...]:
        dims = [row["extent"] for row in self._records(schema.DIM, "DIMS")]
        tensors = self._records(schema.TENSOR, "TENSORS")
        kernels = [self._string(k["name"]) for k in self._records(schema.KERNEL, "KERNELS")]
        args = [
            Arg(Space(a["space"]), a["index"], a["offset"], a["size"])
            for a in self._records(schema.ARG, "ARGS")
        ]
        calls = [
            Call(
                kernel=kernels[c["kernel"]],
                args=tuple(args[c["arg_begin"] : c["arg_begin"] + c["arg_count"]]),
                extent=c["extent"],
                grain=c["grain"],
                layer=self._string(c["layer"]),
                op=self._string(c["op"]),
                template=self._string(c["template"]),
                flops=c["flops"],
                bytes=c["bytes"],
            )
            for c in self._records(schema.CALL, "CALLS")
        ]

        def specs(rows: list[dict[str, int]]) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(
                    self._string(row["name"]),
                    tuple(dims[row["dims_begin"] : row["dims_begin"] + row["rank"]]),
                    DType(row["dtype"]),
                )
                for row in rows
            )

        plans = []
        for row in self._records(schema.PLAN, "PLANS"):
            inputs = tensors[row["input_begin"] : row["input_begin"] + row["input_count"]]
            outputs = tensors[row["output_begin"] : row["output_begin"] + row["output_count"]]
            plans.append(
                Plan(
                    inputs=specs(inputs),
                    outputs=specs(outputs),
                    input_offsets=tuple(t["arena_offset"] for t in inputs),
                    output_offsets=tuple(t["arena_offset"] for t in outputs),
                    calls=tuple(calls[row["call_begin"] : row["call_begin"] + row["call_count"]]),
                    arena_size=row["arena_size"],
                    scratch_size=row["scratch_size"],
                    tensor_bytes=row["tensor_bytes"],
                )
            )
        return tuple(plans)

    def _metadata(self) -> dict[str, object]:
        value = json.loads(bytes(self._section_bytes("METADATA")) or b"{}")
        if not isinstance(value, dict):
            raise ValueError("metadata is no JSON object")
        return value
