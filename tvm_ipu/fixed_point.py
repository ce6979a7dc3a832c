"""The fixed-point flow: one function a command.

model file - convert -> float stage - calibrate -> fixed stage - compile -> image
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tvm_ipu import __version__
from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.host import read_host
from tvm_ipu.base.ini import IniFile
from tvm_ipu.base.input_config import INPUT, OUTPUT, read_input_config
from tvm_ipu.base.quant_config import QuantConfig, read_quant_config
from tvm_ipu.base.ranges import TensorRange
from tvm_ipu.base.target import Target, load_target
from tvm_ipu.driver import compile_model
from tvm_ipu.frontends.loaders import load_platform
from tvm_ipu.frontends.onnx.plain import graph_from_onnx, graph_to_onnx
from tvm_ipu.frontends.options import LoadOptions
from tvm_ipu.image.schema import STAGE_SUFFIX
from tvm_ipu.image.stage import FIXED, FLOAT, Stage, read_stage, write_stage
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.quantize.collect import Progress, Samples
from tvm_ipu.quantize.levels import DEFAULT, find_level
from tvm_ipu.quantize.parameters import parse_entries, read_parameters, write_parameters
from tvm_ipu.samples.samples import TIMEOUT, open_samples
from tvm_ipu.simulation import compile_runner

_INNER_FACTS = ("level", "extremes", "divisors", "factors", "scaled")
"""Of ranges, not shown as a stage's."""


@dataclass(frozen=True)
class ModelFile:
    """A model and how to read it.

    Attributes:
        path: Its file or folder, or a model in memory.
        platform: What it is, a name of ``frontends.loaders.PLATFORMS``; found out where empty.
        input_config: What the board feeds and reads; plain arrays where it is None.
        target: Chip that the model is for.
        loading: Shapes, where the network begins and ends, and what else loading it needs.
        simplify: Whether BatchNormalization goes into the convolution before it.
    """

    path: Any
    platform: str = ""
    input_config: Path | None = None
    target: str = "host"
    loading: LoadOptions = field(default_factory=LoadOptions)
    simplify: bool = True


def make_float_stage(model: ModelFile, output: Path) -> Stage:
    """Write a model file as a float stage; nothing is left there after a failure.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    contract, file = _read_contract(model.input_config, model.target)
    _check_target(model.target, contract, model.loading.batch or 0)
    graph = load_platform(model.platform, model.path, model.loading, contract, file, model.simplify)
    name = Path(model.path).name if isinstance(model.path, str | Path) else graph.name
    facts = {**graph.source, "tvm_ipu": __version__, "model": name, "platform": graph.source["format"]}
    stage = Stage(FLOAT, graph_to_onnx(graph), contract, model.target, metadata=facts)
    write_stage(stage, output)
    return stage


@dataclass(frozen=True)
class SampleFiles:
    """What a model is calibrated with.

    Attributes:
        images: A file, a folder, or a list of files.
        preprocess: Scripts or names of built-in preprocessing, with commas between the inputs.
        timeout: Seconds that preprocessing of one sample may take.
    """

    images: Path
    preprocess: str
    timeout: float = TIMEOUT


@dataclass(frozen=True)
class Calibration:
    """How to calibrate.

    Attributes:
        level: ``L1`` to ``L5``, or ``Q10`` to ``Q23``.
        num_process: Processes that read samples, and tensors that are looked at at a time; the results do not
            depend on it.
        memory_saving: Go over the samples several times, each time with few tensors.
        quant_config: ``quant_config.yaml``.
        parameters: File of imported ranges and bits, JSON or Pickle.
        transformer: Whether normalisations and softmax stay float; None decides by the network.
    """

    level: str = DEFAULT
    num_process: int = 1
    memory_saving: bool = False
    quant_config: Path | None = None
    parameters: Path | None = None
    transformer: bool | None = None


def make_fixed_stage(
    source: Path,
    output: Path,
    samples: SampleFiles,
    options: Calibration | None = None,
    *,
    input_config: Path | None = None,
    target: str = "",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Stage:
    """Calibrate a float stage.

    Args:
        source: Float stage.
        output: Fixed stage to write; nothing is left there after a failure.
        samples: What to calibrate with.
        options: How to calibrate.
        input_config: What the board feeds and reads; what the float stage says by default.
        target: Chip that the model is for; the float stage's by default.
        checkpoint: Where statistics are kept until the end, so that an interrupted calibration goes on; by
            default beside the output.
        progress: Told what is being done.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    options = options or Calibration()
    stage = read_float_stage(source, input_config)
    stage = replace(stage, target=target or stage.target)
    specs = graph_from_onnx(stage.model).inputs
    found = open_samples(samples.images, samples.preprocess, specs, stage.contract, samples.timeout)
    return calibrate_stage(
        stage,
        output,
        lambda: found.read(norm=True, processes=options.num_process),
        options,
        names=tuple(", ".join(map(str, files)) for files in found.files),
        checkpoint=checkpoint or output.with_name(f"{output.name}.statistics"),
        progress=progress,
    )


def read_float_stage(path: Path, input_config: Path | None = None) -> Stage:
    """A float stage, with another contract where a configuration is given.

    Raises:
        TvmIpuError: The file is no float stage, or the configuration changes what the float model takes.
    """
    stage = read_stage(path, FLOAT)
    return replace(stage, contract=_contract_of(stage, input_config))


def calibrate_stage(
    stage: Stage,
    output: Path,
    samples: Samples,
    options: Calibration | None = None,
    *,
    names: Sequence[str] = (),
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Stage:
    """Calibrate a float stage on arrays.

    Args:
        stage: Float stage.
        output: Fixed stage to write; nothing is left there after a failure.
        samples: Gives the samples from the first one on, as the float model takes them.
        options: How to calibrate.
        names: What the samples are called, where that is known.
        checkpoint: Where statistics are kept until the end; None keeps none.
        progress: Told what is being done.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    options = options or Calibration()
    chip = _check_target(stage.target, stage.contract)
    settings = CalibrationOptions(
        level=options.level,
        transformer=options.transformer,
        operator_bits=max(chip.chip.operator_bits) if chip.chip else 8,
        chip=chip.chip,
        num_process=options.num_process,
        memory_saving=options.memory_saving,
        checkpoint=checkpoint,
        sample_names=tuple(names),
        sample_count=len(names),
        parameters=_parameters(options),
        config=_quant_config(options),
    )
    cores = read_host().cores
    quantized, ranges = calibrate(
        graph_from_onnx(stage.model),
        samples,
        lambda part: compile_runner(part, cores),
        settings,
        stage.contract,
        progress,
    )
    facts = {
        **stage.metadata,
        "tvm_ipu": __version__,
        "level": options.level.upper(),
        **{key: value for key, value in ranges.facts.items() if key not in _INNER_FACTS},
        "sample_names": list(names),
    }
    fixed = Stage(FIXED, graph_to_onnx(quantized), stage.contract, stage.target, ranges, facts)
    write_stage(fixed, output)
    return fixed


def make_image(
    model: ModelFile,
    output: Path,
    samples: SampleFiles,
    options: Calibration | None = None,
    *,
    export_models: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Convert, calibrate and compile in one go.

    Args:
        model: Model file.
        output: Image to write.
        samples: What to calibrate with.
        options: How to calibrate.
        export_models: Whether the stages stay beside the image.
        progress: Told what is being done.

    Returns:
        The files that were written.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    with tempfile.TemporaryDirectory(prefix="tvm_ipu-") as temporary:
        folder = output.parent if export_models else Path(temporary)
        floating, fixed = (folder / f"{output.stem}_{kind}{STAGE_SUFFIX}" for kind in (FLOAT, FIXED))
        make_float_stage(model, floating)
        checkpoint = output.with_name(f"{output.name}.statistics")
        make_fixed_stage(floating, fixed, samples, options, checkpoint=checkpoint, progress=progress)
        compile_model(fixed, model.target, output, progress=progress)
    return [*([floating, fixed] if export_models else []), output]


def export_stage(stage: Path, output: Path) -> None:
    """Write a stage's network as an ONNX model, the fixed one's with QuantizeLinear and DequantizeLinear.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    model = read_stage(stage).model
    try:
        with whole_file(output) as file:
            file.write(model)
    except OSError as err:
        raise ModelError(f"cannot write '{output}': {err.strerror}") from err


def export_parameters(stage: Path, output: Path, mode: str) -> None:
    """Write a fixed stage's ranges and bits, other than of weights that calibration has scaled.

    Args:
        stage: Fixed stage.
        output: File to write.
        mode: One of ``quantize.parameters.MODES``.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    table = read_stage(stage, FIXED).ranges
    scaled = table.facts.get("scaled", [])
    assert isinstance(scaled, list)
    write_parameters((one for name, one in table.ranges.items() if name not in scaled), output, mode)


def _quant_config(options: Calibration) -> QuantConfig:
    """Of ``quant_config.yaml``, checked against the mode before any work."""
    if options.quant_config is None:
        return QuantConfig()
    config = read_quant_config(options.quant_config)
    mixture = find_level(options.level).mixed
    if mixture is not None:
        config.check_rate(config.mixed_precisions or mixture, str(options.quant_config))
    return config


def _parameters(options: Calibration) -> tuple[TensorRange, ...]:
    """Imported ranges, and those that ``quant_config.yaml`` presets."""
    found = read_parameters(options.parameters) if options.parameters else ()
    if options.quant_config is None:
        return found
    return (
        *found,
        *parse_entries(read_quant_config(options.quant_config).presets, str(options.quant_config)),
    )


def _read_contract(path: Path | None, target: str) -> tuple[Contract, IniFile | None]:
    return (Contract(), None) if path is None else read_input_config(path, load_target(target).alignment)


def _contract_of(stage: Stage, input_config: Path | None) -> Contract:
    """The stage's contract, or another one that does not change what the float model takes."""
    if input_config is None:
        return stage.contract
    contract, file = read_input_config(input_config, load_target(stage.target or "host").alignment)
    for section, key, ports, own in (
        (INPUT, "inputs", contract.inputs, stage.contract.inputs),
        (OUTPUT, "outputs", contract.outputs, stage.contract.outputs),
    ):
        if [(port.name, port.layout) for port in ports] != [(port.name, port.layout) for port in own]:
            names = ", ".join(f"{port.name} ({port.layout})" for port in own) or "none"
            what = f"names and layouts are not those that the float stage was made with: {names}"
            file.fail(section, key, what, "convert the model again with this file")
    return contract


def _check_target(name: str, contract: Contract, batch: int = 0) -> Target:
    """The target, which takes the contract's formats and that batch."""
    target = load_target(name)
    if target.chip is not None:
        target.chip.check(contract)
        target.chip.check_batch(batch)
    return target
