"""Quantising a model from Python with a dataset, in the manner of OpenVINO and NNCF.

model = tvm_ipu.convert_model(module, example_input=inputs)
dataset = Dataset(source, transform_fn)
fixed = quantize(model, dataset, model_type=ModelType.TRANSFORMER)
serialize(fixed, "model.onnx")
run = compile_model(fixed, "host")
run({"input": array})["output"]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.errors import CalibrationError, OptionError
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.shapes import parse_input_shapes
from tvm_ipu.driver import compile_model as compile_file
from tvm_ipu.fixed_point import Calibration, ModelFile, calibrate_stage, make_float_stage
from tvm_ipu.frontends.loaders import as_onnx
from tvm_ipu.frontends.onnx.memory import declared_shapes, in_memory, save
from tvm_ipu.frontends.onnx.plain import graph_from_onnx
from tvm_ipu.frontends.options import LoadOptions
from tvm_ipu.image.schema import STAGE_SUFFIX
from tvm_ipu.image.stage import Stage, write_stage
from tvm_ipu.quantize.levels import DEFAULT
from tvm_ipu.runtime import Session

Array = NDArray[Any]
Item = TypeVar("Item")


class ModelType(Enum):
    """Kinds of networks that are quantised in a way of their own."""

    TRANSFORMER = "transformer"


@dataclass(frozen=True)
class Dataset(Generic[Item]):
    """Samples for calibration.

    Attributes:
        source: Anything that can be gone through from the start again and again: a list, a data loader.
        transform_fn: Turns an item into what the model takes: an array, a list of them, or arrays by input.
    """

    source: Iterable[Item]
    transform_fn: Callable[[Item], Any] | None = None

    def read(self, inputs: Sequence[str]) -> Iterator[dict[str, Array]]:
        """The samples by input, whose names are given.

        Raises:
            CalibrationError: An item has more or fewer arrays than the model has inputs.
        """
        for number, item in enumerate(self.source):
            data = item if self.transform_fn is None else self.transform_fn(item)
            if isinstance(data, Mapping):
                yield {str(name): np.asarray(value) for name, value in data.items()}
                continue
            arrays = data if isinstance(data, list | tuple) else [data]
            if len(arrays) != len(inputs):
                raise CalibrationError(
                    f"sample {number} has {len(arrays)} arrays, and the model {len(inputs)} inputs",
                    f"return arrays for {', '.join(inputs)}",
                )
            yield {name: np.asarray(value) for name, value in zip(inputs, arrays, strict=True)}


def quantize(
    model: Any,
    dataset: Dataset[Any],
    *,
    model_type: ModelType | None = None,
    target: str = "host",
    quant_level: str = DEFAULT,
    subset_size: int = 300,
    input_shapes: Sequence[str] = (),
    loading: LoadOptions | None = None,
) -> Stage:
    """A model as a fixed stage.

    Args:
        model: What ``tvm_ipu.convert_model`` gives, or anything that it takes.
        dataset: Samples to calibrate with.
        model_type: Keeps normalisations and softmax of a transformer in float; found out where it is None.
        target: Chip that it is for.
        quant_level: ``L1`` to ``L5``, or ``Q10`` to ``Q23``.
        subset_size: Most samples that are used.
        input_shapes: Shapes of inputs that the model leaves open; those of the first sample by default.
        loading: What else loading the model needs.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    loading = loading or LoadOptions()
    shapes = parse_input_shapes(input_shapes) or loading.input_shapes
    source = as_onnx(model, replace(loading, input_shapes=shapes))
    declared = declared_shapes(source, loading)
    if not shapes and None in declared.values():
        first = next(dataset.read(list(declared)), {})
        shapes = {name: value.shape for name, value in first.items() if name in declared}
    loading = replace(loading, input_shapes=shapes)
    with tempfile.TemporaryDirectory(prefix="tvm_ipu-") as folder:
        file = ModelFile(source, target=target, loading=loading)
        stage = make_float_stage(file, Path(folder) / f"float{STAGE_SUFFIX}")
        inputs = [spec.name for spec in graph_from_onnx(stage.model).inputs]
        options = Calibration(quant_level, transformer=True if model_type is ModelType.TRANSFORMER else None)
        return calibrate_stage(
            stage,
            Path(folder) / f"fixed{STAGE_SUFFIX}",
            lambda: islice(dataset.read(inputs), subset_size),
            options,
        )


def serialize(model: Any, path: str | Path) -> None:
    """Write a model.

    Args:
        model: A stage, or what ``tvm_ipu.convert_model`` gives or takes.
        path: A ``.sim`` file, float for a model and fixed for a fixed stage; or an ONNX model, with
            QuantizeLinear and DequantizeLinear for a fixed stage.

    Raises:
        TvmIpuError: The file's name ends in neither, or anything else that the user can mend.
    """
    path = Path(path)
    if path.suffix.lower() not in (STAGE_SUFFIX, ".onnx"):
        raise OptionError(f"serialize: '{path}' does not end in {STAGE_SUFFIX} or .onnx")
    if path.suffix.lower() == STAGE_SUFFIX:
        if isinstance(model, Stage):
            write_stage(model, path)
        else:
            make_float_stage(ModelFile(model), path)
    elif isinstance(model, Stage):
        with whole_file(path) as file:
            file.write(model.model)
    else:
        save(in_memory(as_onnx(model), LoadOptions()), path)


class CompiledModel:
    """An image in use: call it with arrays, and index the result by output.

    Args:
        model: As for ``compile_model``, and so are the other arguments.
        device: A target that this machine runs.
        threads: Threads that share the work.
        input_shapes: Shapes of inputs that the model leaves open.
        loading: What else loading the model needs.
    """

    def __init__(
        self,
        model: Any,
        device: str = "host",
        threads: int = 1,
        input_shapes: Sequence[str] = (),
        loading: LoadOptions | None = None,
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="tvm_ipu-") as folder:
            image = Path(folder) / "model.img"
            compile_file(model, device, image, input_shapes=input_shapes, loading=loading)
            self._session = Session(image, threads=threads)  # maps the file, which may go
        self.inputs, self.outputs = self._session.inputs, self._session.outputs

    def __call__(self, inputs: Mapping[str, Array] | Sequence[Array] | Array) -> dict[str | int, Array]:
        """Run the model.

        Args:
            inputs: Arrays by name, or in the order of ``inputs``.

        Returns:
            The outputs, by name and by number.
        """
        if not isinstance(inputs, Mapping):
            arrays = inputs if isinstance(inputs, list | tuple) else [inputs]
            inputs = {spec.name: value for spec, value in zip(self.inputs, arrays, strict=True)}
        results = self._session.run(dict(inputs))
        found: dict[str | int, Array] = dict(enumerate(results.values()))
        found.update(results)
        return found

    def __enter__(self) -> CompiledModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()


def compile_model(
    model: Any,
    device: str = "host",
    threads: int = 1,
    *,
    input_shapes: Sequence[str] = (),
    loading: LoadOptions | None = None,
) -> CompiledModel:
    """A model, ready to run on this machine.

    Args:
        model: A fixed stage, or what ``tvm_ipu.convert_model`` gives or takes.
        device: A target that this machine runs.
        threads: Threads that share the work.
        input_shapes: Shapes of inputs that the model leaves open.
        loading: What else loading the model needs.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    return CompiledModel(model, device, threads, input_shapes, loading)
