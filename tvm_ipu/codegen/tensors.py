"""Values of the straight-line program: which memory each Relax value lives in, and for how long."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np

from tvm_ipu.base.program import ALIGNMENT, Pieces, Space
from tvm_ipu.base.tensor import DType
from tvm_ipu.kernels.memory import span


@dataclass
class Storage:
    """Memory of one value; views of a value share it.

    A storage may be a part of each innermost row of another one, its parent: it has no memory of its own.

    Attributes:
        space: Memory it lives in.
        size: Bytes.
        index: Number of the input or output.
        offset: Bytes from the start of the memory; for the arena known once it is planned.
        first: Number of the first call that touches it.
        last: Number of the last call that touches it.
        row: Elements of an innermost row of the value.
        parent: What it is a part of.
        column: Element of the parent's rows at which its own begin.
    """

    space: Space
    size: int
    index: int = 0
    offset: int = 0
    first: int = -1
    last: int = -1
    row: int = 0
    parent: Storage | None = None
    column: int = 0

    @property
    def root(self) -> Storage:
        """The storage that has memory."""
        return self.parent.root if self.parent else self

    @property
    def root_column(self) -> int:
        """Element of the root's rows at which its own begin."""
        return self.column + self.parent.root_column if self.parent else 0

    def touch(self, call: int) -> None:
        """Record that call number ``call`` reads or writes this memory."""
        root = self.root
        root.first = call if root.first < 0 else min(root.first, call)
        root.last = max(root.last, call)


@dataclass(frozen=True)
class Value:
    """A tensor of static shape in some memory.

    Attributes:
        storage: The memory.
        shape: Shape.
        dtype: Type of the elements.
        slice_of: Elements of the rows of which its own rows are a part; 0 where it is all of them.
        column: First element of its rows within those.
    """

    storage: Storage
    shape: tuple[int, ...]
    dtype: DType
    slice_of: int = 0
    column: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the dense tensor."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row(self) -> int:
        """Elements of an innermost row in its storage, as this value sees it."""
        return self.slice_of or (self.shape[-1] if self.shape else 1)

    @property
    def pitch(self) -> int:
        """Elements from one innermost row to the next."""
        return self.storage.root.row if self.storage.parent else self.row

    @property
    def is_dense(self) -> bool:
        """Whether its rows follow each other."""
        return self.pitch == (self.shape[-1] if self.shape else 1)

    @property
    def offset(self) -> int:
        """Bytes from the start of the memory."""
        return self.storage.root.offset + (self.storage.root_column + self.column) * self.dtype.itemsize

    @property
    def extent(self) -> int:
        """Bytes from its first element to its last."""
        return span(self.shape, self.pitch) * self.dtype.itemsize

    def part(self, column: int, width: int) -> Value:
        """``width`` elements of each row from ``column`` on."""
        return Value(self.storage, (*self.shape[:-1], width), self.dtype, self.row, self.column + column)


@dataclass
class ConstantPool:
    """Constants of an image, each distinct content stored once.

    Floating-point values and those of 8 bits go to the weights, which are not verified at load; wider
    integers may be used as addresses and go to the verified constants. Nothing is addressed by 8-bit
    constants: they are weights, and entries of tables.
    """

    weights: Pieces = field(default_factory=Pieces)
    consts: Pieces = field(default_factory=Pieces)
    _seen: dict[bytes, Storage] = field(default_factory=dict)

    def add(self, array: np.ndarray) -> Storage:
        """Storage of ``array``'s bytes, appended unless they are there already; nobody writes to them."""
        array = np.ascontiguousarray(array)
        is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
        space = Space.WEIGHTS if is_float or array.dtype.itemsize == 1 else Space.CONSTS
        data = array.reshape(-1).view(np.uint8)
        key = hashlib.blake2b(data.data, digest_size=16, salt=bytes([space])).digest()
        if key not in self._seen:
            pool = self.weights if space is Space.WEIGHTS else self.consts
            pool.append(bytes(-len(pool) % ALIGNMENT))
            self._seen[key] = Storage(space, data.nbytes, offset=len(pool))
            pool.append(data.data)
        return self._seen[key]


def plan_arena(storages: list[Storage], start: int) -> int:
    """Give every arena storage an offset and return the arena's size in bytes.

    Greedy by size: the largest storage first, each at the lowest offset where no storage that lives at
    the same time is in the way (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
    Inference", 2020).

    Args:
        storages: Storages with their lifetimes in ``first`` and ``last``.
        start: First free byte; inputs and outputs lie below.
    """
    placed: list[Storage] = []
    top = start
    for storage in sorted(storages, key=lambda s: (-s.size, s.first)):
        offset = start
        for other in sorted(placed, key=lambda s: s.offset):
            if other.last < storage.first or storage.last < other.first:
                continue
            if offset + storage.size <= other.offset:
                break
            offset = max(offset, align(other.offset + other.size))
        storage.offset = offset
        placed.append(storage)
        top = max(top, align(offset + storage.size))
    return top


def align(size: int) -> int:
    """``size`` rounded up to the alignment of tensors."""
    return -(-size // ALIGNMENT) * ALIGNMENT
