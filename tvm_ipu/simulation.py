"""Stages and images as simulators: the float model, the fixed model, the image.

float stage - driver -> image for this machine -> Session
fixed stage - frontends -> Relax - passes -> integers - simulate -> numpy
image - runtime -> Session
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.contract import Contract, InputContract
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.graph import Graph
from tvm_ipu.base.input_config import read_input_config
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.target import load_target
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.codegen.build import build_program
from tvm_ipu.codegen.kernel_set import KernelSet
from tvm_ipu.frontends.onnx.plain import graph_from_onnx, graph_to_relax
from tvm_ipu.frontends.onnx.rebatch import rebatch
from tvm_ipu.image.memory import map_image
from tvm_ipu.image.reader import ImageInfo, read_image
from tvm_ipu.image.schema import STAGE_SUFFIX
from tvm_ipu.image.stage import FIXED, FLOAT, read_stage
from tvm_ipu.passes.pipeline import run_phases
from tvm_ipu.passes.raw.apply import apply_contract
from tvm_ipu.runtime import Session
from tvm_ipu.samples.samples import PADDED, TIMEOUT, Samples, open_samples
from tvm_ipu.simulate.interpreter import Interpreter
from tvm_ipu.simulate.simulator import Details, Simulator

Array = NDArray[Any]
Runner = Callable[[Mapping[str, Array]], dict[str, Array]]

PHASES = ("Float", "Fixed", "Offline")


@dataclass(frozen=True)
class Described:
    """A stage or an image, before it is opened.

    Attributes:
        path: The file.
        phase: One of ``PHASES``.
        inputs: What preprocessing gives: the float model's inputs. An image of an older version knows the
            sizes of its frames only.
        contract: What the bytes mean.
        target: Chip that it is for.
        graph: A stage's network; None for an image.
        batch: Samples of a run, stacked in the first dimension.
        category: What an image was compiled as (``base.category``).
    """

    path: Path
    phase: str
    inputs: tuple[TensorSpec, ...]
    contract: Contract
    target: str
    graph: Graph | None
    batch: int = 1
    category: str = "Unknown"

    @property
    def extents(self) -> tuple[int, int]:
        """Height and width of the first picture."""
        contracts = {one.name: one for one in self.contract.inputs}
        for spec in self.inputs:
            if len(spec.shape) == 4:
                one = contracts.get(spec.name)
                return one.extents(spec.shape) if one else (spec.shape[2], spec.shape[3])
        return 1, 1

    def open(self, threads: int = 1) -> Simulator:
        """The simulator; ``threads`` share the work.

        Raises:
            TvmIpuError: The network cannot be compiled, or an operator has no definition.
        """
        if self.graph is None:
            return open_offline(self.path, threads, self.batch)
        if self.phase == "Float":
            return _float_simulator(stacked(self.graph, self.batch), threads)
        return _fixed_simulator(self.graph, self.contract, self.target, self.batch)


def describe_model(path: Path, phase: str = "", batch: int = 1) -> Described:
    """What a stage or an image takes.

    Args:
        path: A ``.sim``, or an image.
        phase: One of ``PHASES``, where only that will do.
        batch: Samples of a run, stacked in the first dimension.

    Raises:
        OptionError: The file is of another phase, or an image for other batches.
        ImageError: It is none of them, or damaged.
    """
    stage = read_stage(path) if path.suffix.lower() == STAGE_SUFFIX else None
    found = "Offline" if stage is None else "Float" if stage.kind == FLOAT else "Fixed"
    if phase and phase not in PHASES:
        raise OptionError(f"-t: '{phase}' is not known", f"allowed are {', '.join(PHASES)}")
    if phase and phase != found:
        raise OptionError(f"-t {phase}: {path} is of the phase {found}")
    if stage is not None:
        graph = graph_from_onnx(stage.model)
        return Described(path, found, graph.inputs, stage.contract, stage.target, graph, batch)
    image = read_image(path)
    contracts = {one.name: one for one in image.contract.inputs}
    plan = image.plans[find_plan(image, batch)]
    specs = (replace(s, shape=(s.shape[0] // batch, *s.shape[1:])) if batch > 1 else s for s in plan.inputs)
    inputs = tuple(_picture(spec, contracts.get(spec.name), image.picture_size(spec.name)) for spec in specs)
    category = str(image.metadata.get("category", "Unknown"))
    return Described(path, found, inputs, image.contract, image.target.name, None, batch, category)


def check_config(path: Path | None, contract: Contract, target: str) -> None:
    """Refuse an ``input_config.ini`` other than the one that a model was made with.

    Args:
        path: The configuration; nothing is compared without it.
        contract: The model's own.
        target: Chip that the model is for; this machine where empty.

    Raises:
        OptionError: They differ, or the file cannot be read.
    """
    if path is None:
        return
    given, _ = read_input_config(path, load_target(target or "host").alignment)
    if given != contract:
        raise OptionError(
            f"--input-config: {path} is not the configuration that the model was made with",
            "leave the option out, or make the model again",
        )


def find_plan(image: ImageInfo, batch: int) -> int:
    """Number of the plan of an image that takes so many samples at once.

    Raises:
        OptionError: There is none.
    """
    if batch == 1:
        return 0
    sizes = [plan.inputs[0].shape[0] if plan.inputs and plan.inputs[0].shape else 1 for plan in image.plans]
    if batch not in sizes:
        raise OptionError(
            f"--batch: the image has no plan for {batch} samples at once, only for "
            f"{', '.join(map(str, sizes))}",
            f"compile with --batch {batch} --batch_mode one_buf",
        )
    return sizes.index(batch)


def stacked(graph: Graph, batch: int) -> Graph:
    """The network for so many samples at once, stacked in the first dimension."""
    (first, *_) = graph.inputs[0].shape or (1,)
    return rebatch(graph, batch * first) if batch > 1 else graph


def _picture(spec: TensorSpec, contract: InputContract | None, size: tuple[int, int] | None) -> TensorSpec:
    """The float model's input behind a frame; as large as the frame where the picture's size is unknown."""
    if contract is None or contract.is_raw:
        return spec
    return TensorSpec(spec.name, contract.picture_shape(spec.shape, size), DType.FLOAT32)


def samples_for(model: Described, images: Path, preprocess: str, timeout: float = TIMEOUT) -> Samples:
    """Samples of ``-i`` and ``-n`` for a model; pictures for an image may lack its frames' padding.

    Raises:
        OptionError: As for ``samples.open_samples``.
    """
    samples = open_samples(images, preprocess, model.inputs, model.contract, timeout)
    return replace(samples, shapes=PADDED) if model.phase == "Offline" else samples


def open_float(path: Path, threads: int = 1) -> Simulator:
    """The float model of a stage, run by an image for this machine.

    Raises:
        TvmIpuError: The file is no float stage, or cannot be compiled.
    """
    return _float_simulator(graph_from_onnx(read_stage(path, FLOAT).model), threads)


def open_fixed(path: Path, target: str = "", batch: int = 1) -> Simulator:
    """The fixed model of a stage, computed in numpy: an image compiled from it gives the same bytes.

    Args:
        path: A fixed stage.
        target: Chip whose integers are simulated; by default the stage's own.
        batch: Samples that are stacked in the first dimension, where the network can be.

    Raises:
        TvmIpuError: The file is no fixed stage, or has an operator without a definition.
    """
    stage = read_stage(path, FIXED)
    return _fixed_simulator(graph_from_onnx(stage.model), stage.contract, target or stage.target, batch)


def open_offline(path: Path, threads: int = 1, batch: int = 1) -> Simulator:
    """An image, run by the C runtime.

    Raises:
        OptionError: It is for other batches.
        ImageError: The file is no image for this machine.
    """
    session = Session(path, find_plan(read_image(path), batch) if batch > 1 else None, threads)

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return session.run(dict(feeds))

    return Simulator(session.inputs, session.outputs, run)


def _float_simulator(graph: Graph, threads: int) -> Simulator:
    return Simulator(graph.inputs, graph.outputs, compile_runner(graph, threads), float_tensors(graph))


def _fixed_simulator(graph: Graph, contract: Contract, target: str, batch: int) -> Simulator:
    interpreter = fixed_interpreter(stacked(graph, batch), contract, target)
    return Simulator(interpreter.inputs, interpreter.outputs, interpreter.run, fixed_tensors(graph))


def compile_runner(graph: Graph, threads: int = 1, options: CompileOptions | None = None) -> Runner:
    """A float or quantised graph as a function that an image for this machine computes."""
    chip = load_target("host")
    options = options or CompileOptions(winograd=False)
    model = graph_to_relax(graph)
    fused = model.with_module(run_phases(model.module, chip, options))
    program = build_program([fused], chip, options.jobs, kernels=KernelSet(chip))
    image, _ = map_image(program)
    session = Session(memoryview(image), threads=threads)

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        for spec in session.outputs:  # kernels write into the arrays that are returned: no copies
            session.bind_output(spec.name, session.empty(spec.name))
        return session.run(feeds)

    return run


def fixed_interpreter(graph: Graph, contract: Contract, target: str) -> Interpreter:
    """The interpreter of a quantised graph with the raw bytes of its contract."""
    model = apply_contract(graph_to_relax(graph), contract)
    module = run_phases(model.module, load_target(target or "host"), CompileOptions(), last="integer")
    return Interpreter(model.with_module(module))


def float_tensors(graph: Graph) -> list[Details]:
    """Name, shape and type of every tensor of a float graph."""
    specs = {spec.name: spec for spec in (*graph.inputs, *graph.tensors.values(), *graph.outputs)}
    return [
        {"dtype": spec.dtype.name, "name": spec.name, "shape": np.array(spec.shape, np.int32)}
        for spec in specs.values()
    ]


def fixed_tensors(graph: Graph) -> list[Details]:
    """The same of every quantised tensor and weight, with its numbers' bounds and its steps."""
    details = []
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear":
            continue
        integers, scales, zeros = (*node.inputs, "")[:3]
        found = _integers(graph, integers)
        if found is None or scales not in graph.constants:
            continue
        label, shape = found
        scale = np.atleast_1d(graph.constants[scales]).astype(np.float64)
        zero = np.atleast_1d(graph.constants.get(zeros, np.zeros(1))).astype(np.int64)
        name = integers.removesuffix("/integers")
        low, high = _limits(label)
        details.append(
            {
                "dtype": label.upper(),
                "name": name,
                "shape": np.array(shape, np.int32),
                "min": ((low - zero) * scale).tolist(),
                "max": ((high - zero) * scale).tolist(),
                "quantization": [(float(step), int(z)) for step, z in np.broadcast(scale, zero)],
                "qtype": label.upper(),
            }
        )
    return details


def _integers(graph: Graph, name: str) -> tuple[str, tuple[int, ...]] | None:
    """Type and shape of integers; those of 4 bits are known to constants only."""
    array, spec = graph.constants.get(name), graph.tensors.get(name)
    if array is not None:
        return array.dtype.name, array.shape
    return (spec.dtype.label, spec.shape) if spec else None


def _limits(label: str) -> tuple[int, int]:
    """Lowest and highest integer of a type; numpy does not know those of 4 bits."""
    bits = int(label.lstrip("uint"))
    return (0, 2**bits - 1) if label.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
