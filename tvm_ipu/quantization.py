"""Quantising a model from Python with a dataset, in the manner of OpenVINO and NNCF.

dataset = Dataset(source, transform_fn)
fixed = quantize("model.onnx", dataset, model_type=ModelType.TRANSFORMER)
serialize(fixed, "model.onnx")
run = compile_model(fixed, "host")
run({"input": array})["output"]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.errors import CalibrationError, OptionError
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.tensor import TensorSpec
from tvm_ipu.driver import compile_model as compile_file
from tvm_ipu.fixed_point import Calibration, ModelFile, calibrate_stage, make_float_stage
from tvm_ipu.frontends.onnx.plain import graph_from_onnx
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

    def read(self, inputs: Sequence[TensorSpec]) -> Iterator[dict[str, Array]]:
        """The samples by input.

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
                    f"return arrays for {', '.join(spec.name for spec in inputs)}",
                )
            yield {spec.name: np.asarray(value) for spec, value in zip(inputs, arrays, strict=True)}


def quantize(
    model: str | Path,
    dataset: Dataset[Any],
    *,
    model_type: ModelType | None = None,
    target: str = "host",
    quant_level: str = DEFAULT,
    subset_size: int = 300,
    input_shapes: Sequence[str] = (),
) -> Stage:
    """A model file as a fixed stage.

    Args:
        model: ONNX model.
        dataset: Samples to calibrate with.
        model_type: Keeps normalisations and softmax of a transformer in float; found out where it is None.
        target: Chip that it is for.
        quant_level: ``L1`` to ``L5``, or ``Q10`` to ``Q23``.
        subset_size: Most samples that are used.
        input_shapes: Shapes of inputs that the model leaves open.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    with tempfile.TemporaryDirectory(prefix="tvm_ipu-") as folder:
        file = ModelFile(Path(model), target=target, input_shapes=tuple(input_shapes))
        stage = make_float_stage(file, Path(folder) / f"float{STAGE_SUFFIX}")
        inputs = graph_from_onnx(stage.model).inputs
        options = Calibration(quant_level, transformer=True if model_type is ModelType.TRANSFORMER else None)
        return calibrate_stage(
            stage,
            Path(folder) / f"fixed{STAGE_SUFFIX}",
            lambda: islice(dataset.read(inputs), subset_size),
            options,
        )


def serialize(model: Stage, path: str | Path) -> None:
    """Write a fixed stage: as ``.sim``, or as an ONNX model with QuantizeLinear and DequantizeLinear.

    Raises:
        OptionError: The file's name ends in neither.
    """
    path = Path(path)
    if path.suffix.lower() == STAGE_SUFFIX:
        write_stage(model, path)
    elif path.suffix.lower() == ".onnx":
        with whole_file(path) as file:
            file.write(model.model)
    else:
        raise OptionError(f"serialize: '{path}' does not end in {STAGE_SUFFIX} or .onnx")


class CompiledModel:
    """An image of a fixed stage: call it with arrays, and index the result by output.

    Args:
        model: Fixed stage.
        device: A target that this machine runs.
        threads: Threads that share the work.
    """

    def __init__(self, model: Stage, device: str = "host", threads: int = 1) -> None:
        with tempfile.TemporaryDirectory(prefix="tvm_ipu-") as folder:
            stage, image = Path(folder) / f"model{STAGE_SUFFIX}", Path(folder) / "model.img"
            write_stage(model, stage)
            compile_file(stage, device, image)
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


def compile_model(model: Stage, device: str = "host", threads: int = 1) -> CompiledModel:
    """A fixed stage, ready to run on this machine."""
    return CompiledModel(model, device, threads)
