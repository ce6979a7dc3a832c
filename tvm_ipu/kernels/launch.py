"""A launch: one kernel of the image, as the templates and the generic rule hand it to code generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm import tirx

from tvm_ipu.kernels.expressions import dtype_of, shape_of

ArgRef = tuple[str, int]
"""Where an argument comes from: ``("param", i)`` of the fused function or ``("temp", k)``."""

TempSpec = tuple[tuple[int, ...], str]
"""Shape and TVM dtype of an intermediate tensor that lives from one launch to a later one."""


@dataclass(frozen=True)
class Launch:
    """One kernel and its arguments.

    Attributes:
        func: Its parameters are buffers in argument order. The body has one outermost loop of kind PARALLEL
            with static extent, and everything else inside it; or no such loop, and then ``extent`` is 1.
        args: For each parameter of ``func``, the tensor that it is bound to.
        extent: Extent of the parallel loop: units of work that may run at the same time, in any order.
        grain: Fewest units that are worth a thread of their own; ``extent`` where it must not be split.
        template: Name of the template that made it, or ``generic``.
        flops: Arithmetic operations of the whole kernel (a multiply-add counts two).
    """

    func: tirx.PrimFunc
    args: tuple[ArgRef, ...]
    extent: int
    grain: int
    template: str
    flops: int


class LaunchList:
    """The launches of a fused function while they are put together.

    Attributes:
        launches: They, in order.
        temps: Temporaries between them.
    """

    def __init__(self, func: tirx.PrimFunc) -> None:
        self._params = {param: i for i, param in enumerate(func.params)}
        self._temps: dict[tirx.Buffer, int] = {}
        self.launches: list[Launch] = []
        self.temps: list[TempSpec] = []

    def add(
        self,
        func: tirx.PrimFunc,
        buffers: Sequence[tirx.Buffer],
        extent: int,
        grain: int,
        template: str,
        flops: int,
    ) -> None:
        """Append a kernel, given the fused function's buffers in the order of its parameters."""
        args = tuple(self._ref(buffer) for buffer in buffers)
        self.launches.append(Launch(func, args, extent, grain, template, flops))

    def add_all(
        self, launches: Sequence[Launch], temps: Sequence[TempSpec], params: Sequence[tirx.Buffer]
    ) -> None:
        """Append the launches of a part of the fused function, whose parameters are ``params``."""
        first = len(self.temps)
        self.temps += temps
        for launch in launches:
            args = tuple(
                self._ref(params[i]) if kind == "param" else ("temp", first + i) for kind, i in launch.args
            )
            self.launches.append(replace(launch, args=args))

    def is_param(self, buffer: tirx.Buffer) -> bool:
        """Whether a buffer is an input or an output of the fused function."""
        return buffer in self._params

    def _ref(self, buffer: tirx.Buffer) -> ArgRef:
        """Where a buffer comes from; one that is no parameter becomes a temporary."""
        if buffer in self._params:
            return "param", self._params[buffer]
        if buffer not in self._temps:
            self._temps[buffer] = len(self.temps)
            self.temps.append((shape_of(buffer), dtype_of(buffer)))
        return "temp", self._temps[buffer]
