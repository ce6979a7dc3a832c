"""One interface for the simulators of float, fixed and offline models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.errors import RunError
from tvm_ipu.base.tensor import TensorSpec, numpy_dtype

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
Details = dict[str, Any]


class Simulator:
    """A model that runs here: ``set_input`` for each input, ``invoke``, ``get_output``.

    Args:
        inputs: What it takes.
        outputs: What it gives.
        run: Computes the outputs from arrays of the inputs, both by name.
        tensors: Facts about its tensors.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        run: Run,
        tensors: Sequence[Details] = (),
    ) -> None:
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._run, self._tensors = run, tensors
        self._feeds: dict[str, Array] = {}
        self._results: dict[str, Array] = {}

    def get_input_details(self) -> list[Details]:
        """``index``, ``shape``, ``name``, ``dtype`` of each input, and ``quantization`` of integers."""
        return [_details(index, spec) for index, spec in enumerate(self.inputs)]

    def get_output_details(self) -> list[Details]:
        """The same of each output."""
        return [_details(index, spec) for index, spec in enumerate(self.outputs)]

    def get_tensor_details(self) -> list[Details]:
        """Facts about each tensor: ``name``, ``shape``, ``dtype``; of integers also what they mean."""
        return [dict(one) for one in self._tensors]

    def set_input(self, index: int, data: Array) -> None:
        """Give an input's array.

        Raises:
            RunError: There is no such input, or the array has another shape or type.
        """
        spec = self._spec(self.inputs, index, "input")
        array = np.asarray(data)
        if array.shape != spec.shape or array.dtype.name != spec.dtype.label:
            raise RunError(f"input '{spec.name}' is {array.dtype}{list(array.shape)}", f"it takes {spec}")
        self._feeds[spec.name] = array

    def invoke(self) -> None:
        """Run the model on the inputs that were set.

        Raises:
            RunError: An input was not set.
        """
        missing = [spec.name for spec in self.inputs if spec.name not in self._feeds]
        if missing:
            raise RunError(
                f"input '{missing[0]}' was not set", "call set_input for every input before invoke"
            )
        self._results = self._run(self._feeds)

    def get_output(self, index: int) -> Array:
        """An output of the last ``invoke``.

        Raises:
            RunError: There is no such output, or the model has not run.
        """
        spec = self._spec(self.outputs, index, "output")
        if spec.name not in self._results:
            raise RunError("the model has not run", "call invoke first")
        return self._results[spec.name]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, for arrays of all inputs by name."""
        for index, spec in enumerate(self.inputs):
            if spec.name in feeds:
                self.set_input(index, feeds[spec.name])
        self.invoke()
        return dict(self._results)

    def _spec(self, specs: tuple[TensorSpec, ...], index: int, kind: str) -> TensorSpec:
        if not 0 <= index < len(specs):
            raise RunError(f"there is no {kind} {index}", f"allowed are 0 to {len(specs) - 1}")
        return specs[index]


def _details(index: int, spec: TensorSpec) -> Details:
    details: Details = {
        "index": index,
        "shape": np.array(spec.shape, np.int32),
        "name": spec.name,
        "dtype": numpy_dtype(spec.dtype.label).type,
    }
    if spec.format:
        details["format"] = spec.format
    if spec.scale:
        details["quantization"] = (spec.scale, spec.zero)
    return details
