"""What code generation hands to the image writer: plans of kernel calls, machine code and constants."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.target import Target
from tvm_ipu.base.tensor import TensorSpec

ALIGNMENT = 64
"""Alignment in bytes of every tensor in the arena and of every constant."""


class Space(IntEnum):
    """Where a kernel argument lives. The values are part of the image format and never change."""

    INPUT = 0
    OUTPUT = 1
    ARENA = 2
    WEIGHTS = 3
    CONSTS = 4


@dataclass(frozen=True)
class Arg:
    """Address of one kernel argument.

    Attributes:
        space: Memory it lives in.
        index: Number of the input or output; 0 in the other spaces.
        offset: Bytes from the start of that tensor or memory.
        size: Bytes that the kernel may touch from there on; the runtime checks the range at load.
    """

    space: Space
    index: int
    offset: int
    size: int


@dataclass(frozen=True)
class Call:
    """One kernel call: ``kernel(args, scratch, begin, end)`` over ``extent`` independent units of work.

    Attributes:
        kernel: Symbol in ``Program.symbols``.
        args: Arguments in the kernel's own order.
        extent: Units of work; the runtime may cut ``[0, extent)`` into one range a thread.
        grain: Fewest units worth a thread of their own (``extent`` where the call must not be split).
        layer: Name of the model's node, or nodes joined by ``+``, for profiles and error messages.
        op: Kind of operator (``conv2d``, ``add`` ...), for profiles.
        template: Template that made the kernel, or ``generic``.
        flops: Floating-point or integer operations of the call (a multiply-add counts two).
        bytes: Bytes the call has to read and write at least.
    """

    kernel: str
    args: tuple[Arg, ...]
    extent: int
    grain: int
    layer: str
    op: str
    template: str
    flops: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """The calls of one set of input shapes, with the memory that they need.

    The session's own buffers for inputs and outputs lie in the arena, at ``input_offsets`` and
    ``output_offsets``; no other tensor shares their bytes, and the caller may bind memory of its own instead.

    Attributes:
        arena_size: Bytes of the arena, inputs and outputs included.
        scratch_size: Bytes of private scratch memory that each thread needs.
        tensor_bytes: Sum of all intermediate tensors, to be compared with ``arena_size``.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_offsets: tuple[int, ...]
    output_offsets: tuple[int, ...]
    calls: tuple[Call, ...]
    arena_size: int
    scratch_size: int
    tensor_bytes: int


@dataclass
class Pieces:
    """Many bytes that lie in several places, as they follow each other in a file.

    Attributes:
        parts: Buffers of bytes.
        size: Bytes of all of them.
    """

    parts: list[bytes | memoryview] = field(default_factory=list)
    size: int = 0

    def __len__(self) -> int:
        return self.size

    def append(self, part: bytes | memoryview) -> None:
        """Add bytes behind the others."""
        self.parts.append(part)
        self.size += len(part)


@dataclass(frozen=True)
class Program:
    """A compiled model, ready to be written as an image.

    Attributes:
        code: Memory image of a position-independent shared object without relocations.
        symbols: Kernel name -> byte offset of its entry in ``code``.
        weights: Floating-point and other value constants; damage changes results, never addresses.
        consts: Constants that may be used as indices; the runtime verifies them before use.
        metadata: Model name, producer versions and other facts for ``inspect`` (JSON values only).
        contract: What raw bytes at inputs and outputs mean.
    """

    target: Target
    plans: tuple[Plan, ...]
    code: bytes
    symbols: dict[str, int]
    weights: bytes | Pieces
    consts: bytes | Pieces
    metadata: dict[str, object] = field(default_factory=dict)
    contract: Contract = field(default_factory=Contract)
