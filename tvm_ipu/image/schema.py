"""Layout of the offline image: the one source of writer, reader, C header and docs/image-format.md.

Everything is little-endian, every record is a multiple of 8 bytes and its fields are naturally aligned, so C
reads records in place. ``python -m tvm_ipu.image.generate`` derives the other forms from this module.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

MAGIC_BYTES = b"\x89IPU\r\n\x1a\n"
"""First bytes of a file: not text, and damaged by any line-ending conversion."""
MAGIC = int.from_bytes(MAGIC_BYTES, "little")
VERSION_MAJOR = 1
"""Raised when an older reader could misread the file; readers refuse a newer major version."""
VERSION_MINOR = 0
"""Raised when something is added that an older reader may ignore."""
KNOWN_INCOMPATIBLE_FLAGS = 0
"""Bits of ``header.incompatible_flags`` that this version understands; any other bit is refused."""
SECTION_ALIGNMENT = 64
PAGE_ALIGNMENT = 4096
MAX_SECTIONS = 256

_FORMATS = {"u16": "H", "u32": "I", "i32": "i", "u64": "Q", "i64": "q"}


class Kind(IntEnum):
    """What a container holds."""

    IMAGE = 1
    FLOAT_STAGE = 2
    FIXED_STAGE = 3


STAGE_KINDS = (Kind.FLOAT_STAGE, Kind.FIXED_STAGE)
STAGE_SUFFIX = ".sim"


class SectionFlag(IntEnum):
    """Bits of ``section.flags``."""

    REQUIRED = 1


@dataclass(frozen=True)
class Field:
    """One field of a record: C type (``u32`` ...), name and meaning."""

    ctype: str
    name: str
    doc: str


class Record:
    """A fixed-size little-endian record.

    Args:
        name: C name without the ``ipu_`` prefix.
        doc: One line for the header and the documentation.
        fields: In file order, without padding between them.
    """

    def __init__(self, name: str, doc: str, *fields: Field) -> None:
        self.name, self.doc, self.fields = name, doc, fields
        self._struct = struct.Struct("<" + "".join(_FORMATS[f.ctype] for f in fields))
        self.size = self._struct.size

    def pack(self, **values: int) -> bytes:
        """The record's bytes; fields that are not given are zero.

        Raises:
            KeyError: A value for a field that does not exist.
            struct.error: A value that does not fit its field.
        """
        row = {f.name: 0 for f in self.fields}
        for name, value in values.items():
            if name not in row:
                raise KeyError(name)
            row[name] = value
        return self._struct.pack(*row.values())

    def unpack(self, data: bytes | memoryview, offset: int = 0) -> dict[str, int]:
        """Field values of the record at ``offset``."""
        return dict(zip((f.name for f in self.fields), self._struct.unpack_from(data, offset), strict=True))

    def offset_of(self, name: str) -> int:
        """Byte offset of the field ``name`` in the record."""
        position = 0
        for field in self.fields:
            if field.name == name:
                return position
            position += struct.calcsize(_FORMATS[field.ctype])
        raise KeyError(name)


HEADER = Record(
    "header",
    "First bytes of every file.",
    Field("u64", "magic", "`89 49 50 55 0D 0A 1A 0A`"),
    Field("u16", "version_major", f"{VERSION_MAJOR}; a newer one is refused"),
    Field("u16", "version_minor", f"{VERSION_MINOR}; a newer one is read, see the version policy"),
    Field("u32", "kind", "what the container holds: 1 = offline image, 2 = float stage, 3 = fixed stage"),
    Field("u64", "file_size", "bytes of the whole file"),
    Field("u64", "table_offset", "offset of the section table, a multiple of 8"),
    Field("u32", "section_count", f"entries of the section table, at most {MAX_SECTIONS}"),
    Field("u32", "incompatible_flags", "a reader refuses a file with a bit that it does not know"),
    Field("u64", "reserved0", "zero"),
    Field("u64", "reserved1", "zero"),
    Field("u32", "reserved2", "zero"),
    Field("u32", "crc32", "of the header's bytes before this field, then the section table"),
)
SECTION = Record(
    "section",
    "One entry of the section table; the entries ascend by offset and do not overlap.",
    Field("u32", "type", "see the list of sections"),
    Field("u32", "flags", "bit 0: a reader that does not know the type must refuse the file"),
    Field("u64", "offset", f"in the file, a multiple of {SECTION_ALIGNMENT}"),
    Field("u64", "size", "bytes, without the padding behind it"),
    Field("u32", "record_size", "bytes from one record to the next; 0 where there are no records"),
    Field("u32", "crc32", "of the section's bytes"),
)
TARGET = Record(
    "target",
    "The machine the code is for. Strings are offsets into `strings`.",
    Field("u32", "name", "string: the target's name in tvm_ipu"),
    Field(
        "u32", "arch", "string: `x86_64`, `aarch64`, `arm`, `riscv64`, `hexagon`; must be the reader's own"
    ),
    Field("u32", "triple", "string: LLVM triple of the code"),
    Field("u32", "cpu", "string: LLVM CPU name, may be empty"),
    Field("u32", "features", "string: LLVM attributes, comma-separated"),
    Field("u32", "requires", "string: CPU features without which the code cannot run, comma-separated"),
    Field("u32", "numerics", "string: numerics family"),
    Field("u32", "pointer_bits", "32 or 64; must equal the reader's own"),
)
TENSOR = Record(
    "tensor",
    "One input or output of a plan.",
    Field("u32", "name", "string"),
    Field("u32", "dtype", "element type"),
    Field("u32", "rank", "number of dimensions"),
    Field("u32", "dims_begin", "index of the first dimension in `dims`"),
    Field("u64", "nbytes", "bytes of the dense, row-major tensor: the dimensions times the element's size"),
    Field("u64", "arena_offset", f"of the session's own buffer, a multiple of {SECTION_ALIGNMENT}"),
    Field("u32", "format", "string: colour format of a frame, format of raw data; empty for numbers"),
    Field(
        "u32", "scale", "bits of a float32: integers q mean (q - zero) * scale; 0 where they mean themselves"
    ),
    Field("i32", "zero", "zero point"),
    Field("u32", "reserved0", "zero"),
)
DIM = Record("dim", "One dimension of a tensor.", Field("i64", "extent", "elements, 0 or more"))
PLAN = Record(
    "plan",
    "The calls of one set of input shapes and the memory that they need.",
    Field("u32", "input_begin", "index of the first input in `tensors`"),
    Field("u32", "input_count", ""),
    Field("u32", "output_begin", "index of the first output in `tensors`"),
    Field("u32", "output_count", ""),
    Field("u32", "call_begin", "index of the first call in `calls`"),
    Field("u32", "call_count", "calls, made in this order"),
    Field("u64", "arena_size", "bytes of the arena, the session's inputs and outputs included"),
    Field("u64", "scratch_size", "bytes of private scratch memory for each thread"),
    Field("u64", "tensor_bytes", "sum of all intermediate tensors, for comparison with the arena"),
)
CALL = Record(
    "call",
    "One kernel call.",
    Field("u32", "kernel", "index in `kernels`"),
    Field("u32", "arg_begin", "index of the first argument in `args`"),
    Field("u32", "arg_count", ""),
    Field("i32", "extent", "units of work, 0 or more; threads share the range [0, extent)"),
    Field("i32", "grain", "fewest units worth a thread of their own, 1 or more"),
    Field("u32", "layer", "string: the model's node or nodes"),
    Field("u32", "op", "string: kind of operator"),
    Field("u32", "template", "string: the template that made the kernel, or `generic`"),
    Field("u64", "flops", "operations of the call; a multiply-add counts two"),
    Field("u64", "bytes", "bytes the call has to read and write at least"),
)
ARG = Record(
    "arg",
    "Address of one kernel argument; the whole range must lie in its space.",
    Field("u32", "space", "memory that it lies in"),
    Field("u32", "index", "number of the plan's input or output; 0 in the other spaces"),
    Field("u64", "offset", "bytes from the start of that tensor or memory"),
    Field("u64", "size", "bytes that the kernel may touch from there on"),
)
KERNEL = Record(
    "kernel",
    "Entry point of one kernel.",
    Field("u32", "name", "string"),
    Field("u32", "reserved0", "zero"),
    Field("u64", "offset", "of the entry in `code`"),
)


class SectionType(IntEnum):
    """Kinds of sections. The values never change; unknown ones without the required flag are skipped."""

    TARGET = 1
    STRINGS = 2
    DIMS = 3
    TENSORS = 4
    PLANS = 5
    CALLS = 6
    ARGS = 7
    KERNELS = 8
    CODE = 9
    CONSTS = 10
    WEIGHTS = 11
    METADATA = 12
    PREPROCESSING = 32
    QUANTIZATION = 33
    SIGNATURE = 34
    MODEL = 40
    CONTRACT = 41
    RANGES = 42
    RANGE_DATA = 43


@dataclass(frozen=True)
class SectionSpec:
    """What a section holds and how a reader treats it.

    Attributes:
        record: Its records; None where it is plain bytes.
        alignment: Of its file offset, bytes.
        required: An image without it is refused.
        verified: Its checksum is compared at load.
        doc: One sentence for the documentation.
    """

    type: SectionType
    record: Record | None
    alignment: int
    required: bool
    verified: bool
    doc: str

    @property
    def name(self) -> str:
        """Lower-case name, as in the documentation and in messages."""
        return self.type.name.lower()


def _plain(kind: SectionType, required: bool, doc: str) -> SectionSpec:
    return SectionSpec(kind, None, SECTION_ALIGNMENT, required, True, doc)


def _table(kind: SectionType, record: Record, doc: str) -> SectionSpec:
    return SectionSpec(kind, record, SECTION_ALIGNMENT, True, True, doc)


def _reserved(kind: SectionType, doc: str) -> SectionSpec:
    return SectionSpec(kind, None, SECTION_ALIGNMENT, False, False, f"Reserved for {doc}.")


SECTIONS = (
    _table(SectionType.TARGET, TARGET, "One `target` record."),
    SectionSpec(
        SectionType.STRINGS,
        None,
        SECTION_ALIGNMENT,
        True,
        True,
        "UTF-8 strings, each ended by a zero byte; starts with the empty string and ends with a zero byte. "
        "A string elsewhere is the byte offset of its first character.",
    ),
    _table(SectionType.DIMS, DIM, "Dimensions of all tensors."),
    _table(SectionType.TENSORS, TENSOR, "Inputs and outputs of all plans."),
    _table(SectionType.PLANS, PLAN, "At least one plan; all of them share code, constants and weights."),
    _table(SectionType.CALLS, CALL, "Kernel calls of all plans."),
    _table(SectionType.ARGS, ARG, "Arguments of all calls."),
    _table(SectionType.KERNELS, KERNEL, "Entry points."),
    SectionSpec(
        SectionType.METADATA,
        None,
        SECTION_ALIGNMENT,
        False,
        True,
        "UTF-8 JSON object: facts about the model and its producer.",
    ),
    SectionSpec(
        SectionType.PREPROCESSING,
        None,
        SECTION_ALIGNMENT,
        False,
        True,
        "UTF-8 JSON object: what the raw bytes at inputs and outputs mean (`base.contract.Contract`): colour "
        "formats, mean, divisor, alignment, layouts. The kernels have it built in.",
    ),
    SectionSpec(
        SectionType.CONSTS, None, SECTION_ALIGNMENT, True, True, "Constants that kernels may use as indices."
    ),
    SectionSpec(
        SectionType.CODE,
        None,
        PAGE_ALIGNMENT,
        True,
        True,
        "Memory image of a position-independent shared object without relocations, mapped readable "
        "and executable.",
    ),
    SectionSpec(
        SectionType.WEIGHTS,
        None,
        PAGE_ALIGNMENT,
        True,
        False,
        "Value constants, packed as the kernels want them; the checksum is compared only on request.",
    ),
    _reserved(SectionType.QUANTIZATION, "scales and zero points of fixed-point tensors"),
    _reserved(SectionType.SIGNATURE, "a signature over the sections before it"),
)
"""All sections of an image, in the order in which the writer lays them out."""

STAGE_SECTIONS = (
    _plain(
        SectionType.METADATA,
        True,
        "UTF-8 JSON object: `target`, and facts about the model, its source, the options and the producer.",
    ),
    _plain(SectionType.CONTRACT, True, "UTF-8 JSON object: what the raw bytes at inputs and outputs mean."),
    _plain(SectionType.RANGES, True, "UTF-8 JSON object: how tensors are quantised; empty in a float stage."),
    _plain(SectionType.RANGE_DATA, False, "Values of weights that calibration has changed."),
    _plain(SectionType.MODEL, True, "The network: an ONNX `ModelProto` with all its weights inside."),
)
"""All sections of a float or fixed stage, in the order in which the writer lays them out."""
RECORDS = (HEADER, SECTION, TARGET, DIM, TENSOR, PLAN, CALL, ARG, KERNEL)
