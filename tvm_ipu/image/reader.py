"""Read an offline image back, for ``inspect`` and for tests. Running one is the C runtime's work."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.files import parse_json
from tvm_ipu.base.program import Arg, Call, Plan, Space
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.image import schema
from tvm_ipu.image.container import Container, Section, parse_container, read_container, read_kind


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
        contract: What raw bytes at inputs and outputs mean.
    """

    path: Path
    version: tuple[int, int]
    file_size: int
    target: ImageTarget
    plans: tuple[Plan, ...]
    symbols: dict[str, int]
    sections: tuple[Section, ...]
    metadata: dict[str, object]
    contract: Contract

    def section_size(self, name: str) -> int:
        """Bytes of the section ``name``; 0 where there is none."""
        return sum(s.size for s in self.sections if s.name == name)

    def picture_size(self, name: str) -> tuple[int, int] | None:
        """Height and width of the picture in an input's frame, without its padding, where that is known."""
        sizes = self.metadata.get("picture_sizes")
        match sizes.get(name) if isinstance(sizes, dict) else None:
            case [int(height), int(width)]:
                return height, width
        return None


def is_image(path: Path) -> bool:
    """Whether the first bytes of a file are those of an image.

    Raises:
        ImageError: The file cannot be read.
    """
    kind = read_kind(path)
    return kind is not None and kind not in schema.STAGE_KINDS


def read_image(path: str | os.PathLike[str], verify_weights: bool = False) -> ImageInfo:
    """Read and check the image at ``path``; the weights are looked at only with ``verify_weights``.

    Raises:
        ImageError: The file is missing, not an image, of a newer version or damaged.
    """
    verify = "weights" if verify_weights else ""
    kinds = (schema.Kind.IMAGE,)
    return _Reader(read_container(Path(path), "an offline image", kinds, schema.SECTIONS, verify)).read()


def parse_image(data: memoryview, name: str) -> ImageInfo:
    """What the image in ``data`` holds; messages call it ``name``.

    Raises:
        ImageError: As for ``read_image``.
    """
    kinds = (schema.Kind.IMAGE,)
    return _Reader(parse_container(Path(name), data, "an offline image", kinds, schema.SECTIONS)).read()


class _Reader:
    """Decodes one file, whose checksums agree."""

    def __init__(self, file: Container) -> None:
        self._file = file
        self._strings = bytes(file.section(schema.SectionType.STRINGS))

    def read(self) -> ImageInfo:
        file = self._file
        try:
            return ImageInfo(
                path=file.path,
                version=(file.header["version_major"], file.header["version_minor"]),
                file_size=file.header["file_size"],
                target=self._target(),
                plans=self._plans(),
                symbols={
                    self._string(k["name"]): k["offset"] for k in self._records(schema.KERNEL, "KERNELS")
                },
                sections=file.sections,
                metadata=self._metadata(),
                contract=self._contract(),
            )
        except (IndexError, ValueError, KeyError, TypeError, AttributeError, struct.error) as err:
            raise file.error(f"the checksums agree but the tables do not ({err})") from err

    def _records(self, record: schema.Record, section: str) -> list[dict[str, int]]:
        kind = schema.SectionType[section]
        data, stride = self._file.section(kind), self._file.entries[kind]["record_size"]
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

    def _calls(self) -> list[Call]:
        kernels = [self._string(k["name"]) for k in self._records(schema.KERNEL, "KERNELS")]
        args = [
            Arg(Space(a["space"]), a["index"], a["offset"], a["size"])
            for a in self._records(schema.ARG, "ARGS")
        ]
        return [
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

    def _specs(self, tensors: list[dict[str, int]], dims: list[int]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                self._string(row["name"]),
                tuple(dims[row["dims_begin"] : row["dims_begin"] + row["rank"]]),
                DType(row["dtype"]),
                self._string(row["format"]),
                struct.unpack("<f", struct.pack("<I", row["scale"]))[0],
                row["zero"],
            )
            for row in tensors
        )

    def _plans(self) -> tuple[Plan, ...]:
        dims = [row["extent"] for row in self._records(schema.DIM, "DIMS")]
        tensors = self._records(schema.TENSOR, "TENSORS")
        calls = self._calls()
        plans = []
        for row in self._records(schema.PLAN, "PLANS"):
            inputs = tensors[row["input_begin"] : row["input_begin"] + row["input_count"]]
            outputs = tensors[row["output_begin"] : row["output_begin"] + row["output_count"]]
            plans.append(
                Plan(
                    inputs=self._specs(inputs, dims),
                    outputs=self._specs(outputs, dims),
                    input_offsets=tuple(t["arena_offset"] for t in inputs),
                    output_offsets=tuple(t["arena_offset"] for t in outputs),
                    calls=tuple(calls[row["call_begin"] : row["call_begin"] + row["call_count"]]),
                    arena_size=row["arena_size"],
                    scratch_size=row["scratch_size"],
                    tensor_bytes=row["tensor_bytes"],
                )
            )
        return tuple(plans)

    def _contract(self) -> Contract:
        text = bytes(self._file.section(schema.SectionType.PREPROCESSING))
        return Contract.from_json(parse_json(text)) if text else Contract()

    def _metadata(self) -> dict[str, object]:
        value = parse_json(bytes(self._file.section(schema.SectionType.METADATA)) or b"{}")
        if not isinstance(value, dict):
            raise ValueError("metadata is no JSON object")
        return value
