"""What an operator converter sees: one node, a context to emit Relax with, and the table it registers in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from tvm_ipu.kernels.constants import make_constant

Array = NDArray[Any]


class UnsupportedNode(Exception):  # noqa: N818  a finding, collected with others into one error
    """A node cannot be converted; the importer collects all of them and reports them at once.

    Args:
        reason: Why, without the node's name, as in ``attribute 'mode' is 'foo'; allowed are a, b``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Node:
    """One ONNX node, ready for a converter.

    Attributes:
        op_type: Operator, such as ``Conv``.
        domain: Its domain; ``""`` is the standard one.
        name: Name of the node, or of its first output where it has none.
        since: Opset version of the domain in the model (not the version that introduced the operator).
        inputs: Values with static shapes; None where an optional input is missing.
        attrs: Values given in the model: int, float, str, list, ndarray (tensors), GraphProto (subgraphs).
        outputs: Names of the wanted outputs; ``""`` where the model does not want one.
        types: ONNX's element types of the inputs where they are known; ``ops.small`` carries some in others.
    """

    op_type: str
    domain: str
    name: str
    since: int
    inputs: tuple[relax.Expr | None, ...]
    attrs: dict[str, Any]
    outputs: tuple[str, ...]
    types: tuple[str, ...] = ()

    def type(self, index: int) -> str:
        """Element type of input ``index``; empty where it is not known."""
        return self.types[index] if index < len(self.types) else ""

    def input(self, index: int) -> relax.Expr | None:
        """Input ``index``, or None where it is missing or the node has fewer inputs."""
        return self.inputs[index] if index < len(self.inputs) else None


class Context:
    """Emits Relax for the nodes of one model.

    Attributes:
        bb: The builder, inside the dataflow block of ``main``; the importer's names bindings after the node.
    """

    def __init__(self, bb: relax.BlockBuilder) -> None:
        self.bb = bb

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Normalise ``expr`` and bind it to a new variable."""
        return self.bb.emit(expr)

    def te(
        self, fn: Callable[..., Any], *args: Any, name: str, attrs: dict[str, str] | None = None
    ) -> relax.Expr:
        """Emit a tensor expression as a PrimFunc and its call.

        Args:
            fn: Takes a ``te.Tensor`` for each Relax expression in ``args``, other arguments unchanged, and
                returns one tensor or a list of them.
            args: Relax expressions (variables, constants of any rank), Python values, lists of them.
            name: Name of the PrimFunc.
            attrs: Attributes of the PrimFunc.

        Returns:
            The result's variable: a tensor, or a tuple where ``fn`` returns several.
        """
        return self.emit(self.bb.call_te(fn, *args, primfunc_name_hint=name, primfunc_attrs=attrs))

    def value(self, expr: relax.Expr | None) -> Array | None:
        """A copy of the value of a constant; None for anything else."""
        if isinstance(expr, tvm.ir.GenericConst):
            array: Array = expr.value.numpy()
            return array
        return None

    def const(self, array: Any) -> relax.Expr:
        """``array`` as a constant of exactly its numpy type (Python numbers: float64, int64)."""
        return make_constant(np.asarray(array))

    def shape(self, expr: relax.Expr) -> tuple[int, ...]:
        """Static dimensions of a tensor.

        Raises:
            UnsupportedNode: A dimension depends on data.
        """
        shape = self._tensor_type(expr).shape
        dims = None if shape is None else [_as_int(d) for d in shape]
        if dims is None or None in dims:
            raise UnsupportedNode("the shape of an input depends on data")
        return tuple(d for d in dims if d is not None)

    def dtype(self, expr: relax.Expr) -> str:
        """Element type of a tensor in TVM's spelling, such as ``float32``."""
        return str(self._tensor_type(expr).dtype)

    def require_value(self, node: Node, index: int, what: str) -> Array:
        """Value of input ``index`` of ``node``, named ``what`` in the operator's specification.

        Raises:
            UnsupportedNode: It is missing or no constant.
        """
        value = self.value(node.input(index))
        if value is None:
            raise UnsupportedNode(f"input '{what}' must be a constant")
        return value

    @staticmethod
    def _tensor_type(expr: relax.Expr) -> relax.TensorType:
        if not isinstance(expr.ty, relax.TensorType):
            raise UnsupportedNode(f"a tensor is needed, found {expr.ty}")
        return expr.ty


def _as_int(dim: Any) -> int | None:
    return int(dim) if isinstance(dim, int | tvm.tirx.IntImm) else None


Converter = Callable[[Context, Node], "relax.Expr | Sequence[relax.Expr]"]
"""Emits one node. Returns its outputs in order; those past the node's wanted ones may be left out."""

CONVERTERS: dict[tuple[str, str], Converter] = {}
"""``(domain, op_type)`` -> converter; filled by importing ``tvm_ipu.frontends.onnx.ops``."""


def converter(*op_types: str, domain: str = "") -> Callable[[Converter], Converter]:
    """Register a function as the converter of ``op_types`` in ``domain``."""

    def register(fn: Converter) -> Converter:
        for op_type in op_types:
            if (domain, op_type) in CONVERTERS:
                raise ValueError(f"two converters for {domain}::{op_type}")
            CONVERTERS[(domain, op_type)] = fn
        return fn

    return register
