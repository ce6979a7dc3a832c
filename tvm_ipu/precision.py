"""Which layers stay in float32 when a model is compiled in 16 bits: measured with images for this machine."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from tvm_ipu.base.model import Model
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.program import Program
from tvm_ipu.base.target import load_target
from tvm_ipu.base.tensor import numpy_dtype
from tvm_ipu.bench.data import fill, load_arrays, split_samples
from tvm_ipu.codegen.build import build_program
from tvm_ipu.codegen.kernel_set import KernelSet
from tvm_ipu.image.memory import map_image
from tvm_ipu.passes.index_ranges import index_ranges
from tvm_ipu.passes.pipeline import ANY_PRECISION, STORAGE_DTYPE, AfterPhase, run_phases
from tvm_ipu.quantize.sensitivity import layer_sensitivities, output_error, sensitive_layers
from tvm_ipu.runtime import Session

Array = NDArray[Any]


@dataclass
class Fused:
    """A model through all passes for one target, in one or several precisions.

    Attributes:
        model: The model before the passes.
        kernels: Kernels of the target.
    """

    model: Model
    kernels: KernelSet
    _common: tvm.ir.IRModule | None = None
    _done: dict[CompileOptions, Model] = field(default_factory=dict)

    def with_options(self, options: CompileOptions, after: AfterPhase | None = None) -> Model:
        """The model through all passes; ``after`` is told of each phase, as ``run_phases`` does."""
        target, module = self.kernels.target, self.model.module
        if after is not None:
            return self.model.with_module(run_phases(module, target, options, after))
        if self._common is None:
            self._common = run_phases(module, target, options, last=ANY_PRECISION)
        if options not in self._done:
            module = run_phases(self._common, target, options, behind=ANY_PRECISION)
            self._done[options] = self.model.with_module(module)
        return self._done[options]

    def for_host(self) -> Fused:
        """The same model for this machine."""
        host = load_target("host")
        return self if self.kernels.target == host else Fused(self.model, KernelSet(host))


def float32_layers(
    fused: Fused, options: CompileOptions, samples: Path | None, warn: Callable[[str], None]
) -> tuple[str, ...]:
    """Layers that 16-bit precision would cost too much.

    Args:
        fused: The model, for any target.
        options: How to compile; ``max_error`` is the bound.
        samples: Inputs by name (``.npz``) on which the error is measured; random ones by default.
        warn: Told where no choice of layers keeps the bound.
    """
    feeds = _feeds(fused.model, samples)
    fused = fused.for_host()
    dtype = numpy_dtype(STORAGE_DTYPE[options.precision])
    program, image, start = _image(fused, replace(options, precision="fp32", winograd=False))
    weights = np.frombuffer(image, np.uint8)[start : start + len(program.weights)]
    with Session(memoryview(image), threads=options.jobs) as session:
        expected = _outputs(session, feeds)

        def measure(kept: tuple[str, ...]) -> float:
            _, mixed, _ = _image(fused, replace(options, float32_layers=kept))
            with Session(memoryview(mixed), threads=options.jobs) as other:
                return output_error(_outputs(other, feeds), expected)

        run = partial(_outputs, session, feeds)
        sensitivities = partial(layer_sensitivities, program, weights, run, dtype)
        kept, error = sensitive_layers(sensitivities, measure, options.max_error)
    if error > options.max_error:
        warn(
            f"--precision {options.precision}: outputs change by {error:.2g} of their largest value, more "
            f"than --max-error {options.max_error:g}, although all layers with weights stay in float32"
        )
    return kept


def _feeds(model: Model, samples: Path | None) -> list[dict[str, Array]]:
    if samples is not None:
        return split_samples(load_arrays(samples), model.inputs, samples)
    return [fill(model.inputs, "random", ranges=index_ranges(model.module))]


def _outputs(session: Session, feeds: list[dict[str, Array]]) -> list[Array]:
    return [value for feed in feeds for value in session.run(feed).values()]


def _image(fused: Fused, options: CompileOptions) -> tuple[Program, mmap.mmap, int]:
    """A program for this machine, its image in memory of our own, and where the weights start in there."""
    kernels = fused.kernels
    model = fused.with_options(options)
    program = build_program([model], kernels.target, options.jobs, kernels=kernels)
    image, info = map_image(program)
    starts = [section.offset for section in info.sections if section.name == "weights"]
    return program, image, starts[0] if starts else 0
