"""From a model as read to a simplified graph: crop, fix shapes, bind constants, simplify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ValueInfoProto, helper

from tvm_ipu.base.errors import OptionError
from tvm_ipu.frontends.onnx.crop import crop
from tvm_ipu.frontends.onnx.graph import Array, Graph
from tvm_ipu.frontends.onnx.inputs import fix_inputs, unknown_names
from tvm_ipu.frontends.onnx.load import Source
from tvm_ipu.frontends.onnx.simplify import Supports, simplify
from tvm_ipu.frontends.options import LoadOptions


def prepare(source: Source, options: LoadOptions, supports: Supports) -> Graph:
    """The part of the model that ``options`` ask for, with static shapes, simplified.

    Args:
        source: The model.
        options: Shapes, cuts and constants.
        supports: Operators to keep; others are replaced by their function bodies.

    Raises:
        ModelError: Dimensions are missing, or the graph does not fit together.
        OptionError: An option does not fit the model.
    """
    source = crop(source, options.inputs, options.outputs)
    infos = list(source.graph.input)
    constants = _constants(infos, options.constants)
    infos = [info for info in infos if info.name not in constants]
    return simplify(source, fix_inputs(infos, options.input_shapes, options.batch), constants, supports)


def _constants(infos: Sequence[ValueInfoProto], given: Mapping[str, Any]) -> dict[str, Array]:
    """The given values in the types of their inputs."""
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    unknown = [name for name in given if name not in types]
    if unknown:
        raise OptionError(unknown_names("constants: there is no input", unknown, list(types)))
    return {n: np.asarray(v, helper.tensor_dtype_to_np_dtype(types[n])) for n, v in given.items()}
