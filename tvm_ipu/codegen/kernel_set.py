"""The kernels of one target: equal ones are compiled once, whatever programs use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import tvm_ffi
from tvm import tirx

from tvm_ipu.base.target import Target
from tvm_ipu.codegen.lower import LoweredKernel, compile_object, lower_kernel
from tvm_ipu.kernels.decisions import Choose, preferred
from tvm_ipu.kernels.launch import Launch, TempSpec
from tvm_ipu.kernels.select import schedule

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""

Unaligned = frozenset[int]
"""Parameters of a kernel that may get an address off ``ALIGNMENT``."""


@dataclass(frozen=True)
class CompiledKernel:
    """Machine code of one kernel.

    Attributes:
        object: Relocatable ELF file.
        scratch_size: Bytes of scratch memory that each thread needs.
    """

    object: bytes
    scratch_size: int


@dataclass
class KernelSet:
    """Kernels by structure; programs that share a set share the work.

    Attributes:
        target: Chip to compile for.
        choose: Makes the kernel templates' decisions.
        launches: Kernels by symbol.
    """

    target: Target
    choose: Choose = preferred
    launches: dict[str, Launch] = field(default_factory=dict)
    _scheduled: dict[tvm_ffi.StructuralKey, tuple[list[Launch], list[TempSpec]]] = field(default_factory=dict)
    _symbols: dict[tvm_ffi.StructuralKey, str] = field(default_factory=dict)
    _compiled: dict[tuple[str, Unaligned], CompiledKernel] = field(default_factory=dict)

    def schedule(self, func: tirx.PrimFunc) -> tuple[list[Launch], list[TempSpec]]:
        """Launches and temporaries of one fused function."""
        key = tvm_ffi.StructuralKey(func.without_attr("global_symbol"))
        if key not in self._scheduled:
            self._scheduled[key] = schedule(func, self.target, self.choose)
        return self._scheduled[key]

    def symbol(self, launch: Launch, name: str) -> str:
        """Symbol of the launch's kernel, named after its first user."""
        key = tvm_ffi.StructuralKey(launch.func.without_attr("global_symbol"))
        if key not in self._symbols:
            self._symbols[key] = f"k{len(self._symbols)}_{name}"[:60]
            self.launches[self._symbols[key]] = launch
        return self._symbols[key]

    def compile(
        self, uses: Mapping[str, Unaligned], jobs: int, progress: Progress | None
    ) -> dict[str, CompiledKernel]:
        """Machine code of kernels by symbol, in the order of ``uses``.

        Args:
            uses: Symbols, and how each is called.
            jobs: Threads that share the work.
            progress: Told what is being done.
        """
        missing = [use for use in uses.items() if use not in self._compiled]
        lowered: list[LoweredKernel] = []
        with ThreadPoolExecutor(max_workers=jobs) as threads:
            for kernel in threads.map(self._lower, missing):
                lowered.append(kernel)
                if progress:
                    progress("lowering kernels", len(lowered), len(missing))
            objects = threads.map(lambda kernel: compile_object([kernel], self.target), lowered)
            for done, (use, kernel, code) in enumerate(zip(missing, lowered, objects, strict=True), 1):
                self._compiled[use] = CompiledKernel(code, kernel.scratch_size)
                if progress:
                    progress("compiling kernels", done, len(missing))
        return {symbol: self._compiled[symbol, unaligned] for symbol, unaligned in uses.items()}

    def _lower(self, use: tuple[str, Unaligned]) -> LoweredKernel:
        symbol, unaligned = use
        return lower_kernel(self.launches[symbol].func, symbol, self.target, unaligned)
