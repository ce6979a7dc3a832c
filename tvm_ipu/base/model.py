"""A model between stages: a Relax module and the contract of its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.tensor import TensorSpec

if TYPE_CHECKING:
    import tvm

VIEW_OPS = ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten")
"""Operators that change a tensor's shape and not its bytes: no kernel, no copy."""

CONCAT, SLICE = "tvm_ipu.concat", "tvm_ipu.slice"
"""Packed functions that stand for operations along the innermost dimension that shall move no data: the
operands' producers write into the result, ``SLICE(x, first)`` is read within ``x``. Code generation copies
what cannot be so."""

LAYERS_ATTR = "tvm_ipu.layers"
"""Module attribute: for each call in ``main``, in order, the names of the model's nodes that it computes."""

NAMES_ATTR = "tvm_ipu.names"
"""Module attribute: the node's name for each variable of ``main`` that Relax had to call something else."""

FLOAT_LAYERS_ATTR = "tvm_ipu.float_layers"
"""Module attribute of a quantised model: ``name: reason`` of each layer that computes in float."""

BITS_ATTR = "tvm_ipu.bits"
"""Module attribute of a quantised model: ``name: bits x bits`` of the operands of each integer product."""


GATHER_ATTR = "tvm_ipu.gather"
"""Attribute of a function that gathers elements of its first operand at positions in its second: the axis."""

ELEMENTWISE_ATTR = "tvm_ipu.elementwise"
"""Attribute of a function of each element that Relax has no operator for: ``maximum``, ``minimum`` (of any
number of tensors, with numpy's broadcasting), ``reciprocal`` or ``sign``."""

INTERPOLATION_ATTR = "tvm_ipu.interpolation"
"""Attribute of a function that adds elements of its first operand along an axis, at positions [outputs, taps]
in its second, times weights in its third: the axis."""

POSITIONS_ATTR = "tvm_ipu.positions"
"""Attribute of a function that picks elements at constant positions along axes: JSON, a list of positions by
axis."""

NORMALISATION_ATTR = "tvm_ipu.normalisation"
"""Attribute of a function that normalises: JSON with ``axes``, ``epsilon``, ``centred`` (whether the mean is
subtracted), and whether ``scale`` and ``bias`` are among its operands."""


def first_node(layer: str) -> str:
    """The node that stands for a layer where layers are chosen: the first of those whose names it joins."""
    return layer.partition("+")[0]


@dataclass(frozen=True)
class Model:
    """A network as Relax.

    Attributes:
        module: Its function ``main`` takes the inputs in the order of ``inputs`` and returns a tuple of
            the outputs in the order of ``outputs``. Weights are constants inside.
        inputs: Inputs of the model, as the caller sees them.
        outputs: Outputs of the model, as the caller sees them.
        name: Name for messages and for the image's metadata.
        source: Facts about where it came from (file, opset, producer) for the image's metadata.
        contract: What raw bytes at inputs and outputs mean; empty where they are plain arrays.
    """

    module: tvm.ir.IRModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    name: str
    source: dict[str, object] = field(default_factory=dict)
    contract: Contract = field(default_factory=Contract)

    def with_module(self, module: tvm.ir.IRModule) -> Model:
        """The same contract over another module."""
        return replace(self, module=module)
