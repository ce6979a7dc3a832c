"""The flow: one function a command, one line a stage.

model - frontends -> Relax - passes -> Relax, fused - codegen -> Program - image -> file
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tvm

from tvm_ipu.base.batch import ONE_BUF, choose_batches
from tvm_ipu.base.category import check_category
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.model import Model
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.program import Program
from tvm_ipu.base.shapes import parse_input_shapes
from tvm_ipu.base.target import Target, load_target
from tvm_ipu.bench.data import fill
from tvm_ipu.codegen.build import build_program
from tvm_ipu.codegen.kernel_set import KernelSet, Progress
from tvm_ipu.frontends.loaders import as_onnx, load_model
from tvm_ipu.frontends.onnx.convert import convert
from tvm_ipu.frontends.onnx.plain import graph_from_onnx, graph_to_onnx
from tvm_ipu.frontends.onnx.rebatch import rebatch
from tvm_ipu.frontends.onnx.weight_bits import weight_bits
from tvm_ipu.frontends.options import LoadOptions
from tvm_ipu.image.schema import STAGE_SUFFIX
from tvm_ipu.image.stage import FLOAT, Stage, read_stage
from tvm_ipu.image.writer import write_image
from tvm_ipu.kernels.decisions import Choose
from tvm_ipu.passes.pipeline import AfterPhase
from tvm_ipu.passes.raw.apply import apply_contract
from tvm_ipu.precision import Fused, float32_layers
from tvm_ipu.runtime.build import SOURCE_DIR
from tvm_ipu.tune.records import Records, read_records, shipped_records, warn_on_stderr
from tvm_ipu.tune.search import Report
from tvm_ipu.tune.tasks import Task, find_tasks
from tvm_ipu.tune.tuner import TuneOptions, TuneReport, tune


@dataclass(frozen=True)
class CompileReport:
    """What one compilation made.

    Attributes:
        image: File that was written.
        program: What is in it.
        seconds: Time of each step, in order.
        tuned: Kernel problems whose decisions came from tuning records.
    """

    image: Path
    program: Program
    seconds: dict[str, float]
    tuned: int = 0


def compile_model(
    model: Any,
    target: str,
    output: Path,
    *,
    input_shapes: Sequence[str] = (),
    batches: Sequence[int] = (),
    batch_mode: str = ONE_BUF,
    category: str = "Unknown",
    outputs: Sequence[str] = (),
    samples: Path | None = None,
    loading: LoadOptions | None = None,
    options: CompileOptions | None = None,
    progress: Progress | None = None,
) -> CompileReport:
    """Compile a model into an image.

    Args:
        model: Path of a model file, folder or stage, or a model in memory: what ``convert_model`` gives or
            takes, or a stage.
        target: Name of a target, or ``host``.
        output: Image to write; nothing is left there when the compilation fails.
        input_shapes: Shapes of the inputs, in any form that ``base.shapes`` reads.
        batches: Batch sizes; each becomes a plan of the image, over the same weights. With ``n_buf`` one
            number: the most elements that ``Session.run_batch`` takes.
        batch_mode: ``one_buf`` or ``n_buf``: whether the elements of a batch share a buffer (``base.batch``).
        category: What the outputs mean, for printing results (``base.category``).
        outputs: Names of the tensors to compute; the model's own outputs by default.
        samples: Inputs by name (``.npz``) on which 16-bit precision is judged; random ones by default.
        loading: What else loading the model needs: where it begins, example inputs, a file of weights.
        options: How to compile.
        progress: Told what is being done.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    options = options or CompileOptions()
    steps = _Steps(progress)
    chip = load_target(target)
    records = _tuning_records(chip, options)
    kernels = KernelSet(chip, records.choose)
    batch = choose_batches(tuple(batches), batch_mode)
    loads = _loads(loading, input_shapes, outputs, batch.sizes)
    _check_chip(chip, options, loads, batch.limit)
    models = _fused_models(model, loads, kernels, samples, options, steps)
    check_category(category, models[0].outputs)
    with steps.timed("code generation"):
        program = build_program(models, chip, options.jobs, progress, kernels)
        program.metadata["category"] = category
        if batch.limit:
            program.metadata["batch_limit"] = batch.limit
    with steps.timed("writing"):
        write_image(program, output)
    if options.tuning_records and not records.used:
        warn_on_stderr(f"--tuning-records: no record is for this model on '{chip.name}', {chip.cores} cores")
    return CompileReport(output, program, steps.seconds, len(records.used))


def default_target(model: Path) -> str:
    """The target that a stage is for, or ``host``."""
    return read_stage(model).target or "host" if model.suffix.lower() == STAGE_SUFFIX else "host"


def tune_model(
    model: Any,
    target: str,
    output: Path,
    *,
    input_shapes: Sequence[str] = (),
    batches: Sequence[int] = (),
    outputs: Sequence[str] = (),
    samples: Path | None = None,
    loading: LoadOptions | None = None,
    options: CompileOptions | None = None,
    tuning: TuneOptions | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> TuneReport:
    """Search for better decisions of a model's kernels by measuring, and record them (docs/tuning.md).

    Args:
        model: Model, as for ``compile_model``, as are the arguments down to ``options``.
        target: Name of a target, or ``host``.
        output: File of records to write; a run starts from what it holds.
        input_shapes: Shapes of the inputs.
        batches: Batch sizes.
        outputs: Names of the tensors to compute.
        samples: Inputs on which 16-bit precision is judged.
        loading: What else loading the model needs.
        options: How to compile.
        tuning: How to search and to measure.
        progress: Told what is being done before the search.
        report: Told of every step of the search.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    options = options or CompileOptions()
    chip = load_target(target)
    kernels = KernelSet(chip)
    loads = _loads(loading, input_shapes, outputs, choose_batches(tuple(batches)).sizes)
    _check_chip(chip, options, loads)
    models = _fused_models(model, loads, kernels, samples, options, _Steps(progress))
    inputs = list(fill(models[0].inputs, "random").values())

    def build(one: Model, choose: Choose, path: Path) -> list[str]:
        program = build_program([one], chip, 1, kernels=KernelSet(chip, choose))
        write_image(program, path)
        return [call.layer for call in program.plans[0].calls]

    return tune(models, inputs, chip, output, tuning or TuneOptions(), build, SOURCE_DIR, report)


def list_tasks(
    model: Any,
    target: str,
    *,
    input_shapes: Sequence[str] = (),
    batches: Sequence[int] = (),
    outputs: Sequence[str] = (),
    loading: LoadOptions | None = None,
    options: CompileOptions | None = None,
) -> list[Task]:
    """What ``tune_model`` would tune; arguments and errors are the same."""
    options, chip = options or CompileOptions(), load_target(target)
    loads = _loads(loading, input_shapes, outputs, choose_batches(tuple(batches)).sizes)
    _check_chip(chip, options, loads)
    models = _fused_models(model, loads, KernelSet(chip), None, options, _Steps(None))
    return find_tasks(models, chip)


def export_onnx(
    model: Any,
    output: Path,
    *,
    input_shapes: Sequence[str] = (),
    precision: str = "fp32",
    opset: int | None = None,
    loading: LoadOptions | None = None,
    platform: str = "",
) -> None:
    """Write ``model`` as an optimised ONNX model of fixed shapes.

    Args:
        model: Path of a model file or folder, or a model in memory.
        output: ONNX model to write; nothing is left there after a failure.
        input_shapes: Shapes of the inputs, in any form that ``base.shapes`` reads.
        precision: ``fp32``, or ``fp16`` between inputs and outputs of the model's own types.
        opset: Of the result; the model's own by default.
        loading: What else loading the model needs.
        platform: What it is, a name of ``frontends.loaders.PLATFORMS``; found out where empty.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    (options,) = _loads(loading, input_shapes, (), ())
    convert(as_onnx(model, options, platform), output, options, precision, opset)


def _loads(
    loading: LoadOptions | None, input_shapes: Sequence[str], outputs: Sequence[str], batches: Sequence[int]
) -> list[LoadOptions]:
    """What to load for each batch size."""
    loading = loading or LoadOptions()
    shapes = parse_input_shapes(input_shapes) or loading.input_shapes
    loading = replace(loading, input_shapes=shapes, outputs=tuple(outputs) or loading.outputs)
    return [replace(loading, batch=batch) for batch in batches or (loading.batch,)]


def _check_chip(
    target: Target, options: CompileOptions, loads: Sequence[LoadOptions], limit: int = 0
) -> None:
    """See that a chip computes in that precision, and runs each batch size and ``limit`` elements at once."""
    if target.chip is None:
        return
    target.chip.check_batch(max([limit, *(load.batch or 0 for load in loads)]))
    if options.precision != "fp32":
        raise OptionError(
            f"--precision: target '{target.chip.name}' has no float unit for '{options.precision}'",
            "leave it out, and compile a fixed stage: calibrate the float model for this target first",
        )


def _fused_models(
    model: Any,
    loads: Sequence[LoadOptions],
    kernels: KernelSet,
    samples: Path | None,
    options: CompileOptions,
    steps: _Steps,
) -> list[Model]:
    """The model as each of ``loads`` says, through all passes."""
    with steps.timed("loading"):
        models = _load(model, loads, kernels.target)
    fused = [Fused(one, kernels) for one in models]
    if options.precision != "fp32" and options.max_error > 0:
        with steps.timed("sensitivity"):
            kept = float32_layers(fused[0], options, samples, warn_on_stderr)
            options = replace(options, float32_layers=kept)
    with steps.timed("passes"):
        return [one.with_options(options, _dumper(options, one.model)) for one in fused]


def _load(model: Any, loads: Sequence[LoadOptions], chip: Target) -> list[Model]:
    """A model, or the network of a stage: a fixed one takes and gives the bytes of its contract."""
    stage = model if isinstance(model, Stage) else _read_stage(model)
    if stage is None:
        source = as_onnx(model, loads[0])
        if chip.chip is not None:
            chip.chip.check_weights(weight_bits(source))
        return [load_model(source, load) for load in loads]
    models = [_stage_network(stage.model, load) for load in loads]
    if stage.kind == FLOAT:
        return models
    if chip.chip is not None:
        chip.chip.check(stage.contract)
        chip.chip.check_weights(weight_bits(stage.model))
    return [apply_contract(model, stage.contract) for model in models]


def _read_stage(model: Any) -> Stage | None:
    """The stage in a file; None for anything else."""
    is_stage = isinstance(model, str | Path) and Path(model).suffix.lower() == STAGE_SUFFIX
    return read_stage(Path(model)) if is_stage else None


def _stage_network(network: bytes, options: LoadOptions) -> Model:
    """The network of a stage, whose shapes are fixed, for the batch that is asked for."""
    if options.batch is not None:
        network = graph_to_onnx(rebatch(graph_from_onnx(network), options.batch))
    return load_model(network, replace(options, batch=None))


def _tuning_records(chip: Target, options: CompileOptions) -> Records:
    """Records that ship with this version, then those of the user's."""
    shipped = shipped_records(chip) if options.shipped_records else []
    files = [*shipped, *options.tuning_records]
    records = [record for file in files for record in read_records(file, warn_on_stderr)]
    return Records(records, chip, warn_on_stderr)


class _Steps:
    """The steps of a command: each is announced, and its seconds are kept."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        if self._progress:
            self._progress(name, 0, 0)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _dumper(options: CompileOptions, model: Model) -> AfterPhase | None:
    """Writes the module after each phase to ``--dump-ir``'s folder."""
    if options.dump_dir is None:
        return None
    folder = options.dump_dir
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"--dump-ir: '{folder}' is a file", "name a folder, new or not")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[str] = []

    def dump(phase: str, module: tvm.ir.IRModule) -> None:
        name = f"{model.name}.{len(written)}-{phase}.py"
        with whole_file(folder / name) as file:
            file.write(module.script(show_meta=False).encode())
        written.append(name)

    return dump
