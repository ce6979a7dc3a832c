"""TVM's own converters, for operators that tvm_ipu has none for."""

from __future__ import annotations

import warnings
from typing import Any

from onnx import NodeProto
from onnx.helper import get_attribute_value
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from tvm_ipu.frontends.onnx.context import Node

_CONTRIB = frozenset(
    {
        "AllClassNMS",
        "Attention",
        "BiasGelu",
        "EmbedLayerNormalization",
        "FastGelu",
        "MatMulInteger16",
        "SkipLayerNormalization",
    }
)
"""Operators that TVM's table, which has no domains, means in the domain com.microsoft."""

_WALKED = frozenset({"If", "Loop", "Scan", "Constant", "Identity", "Shape", "Size", "Dropout"})
"""Operators that only simplification can do."""


def has_tvm_converter(domain: str, op_type: str) -> bool:
    """Whether TVM converts the operator."""
    if op_type not in onnx_frontend._get_convert_map() or op_type in _WALKED:
        return False
    return domain == ("com.microsoft" if op_type in _CONTRIB else "")


def convert_by_tvm(bb: relax.BlockBuilder, node: Node, proto: NodeProto) -> relax.Expr:
    """The node's result by TVM's converter.

    Args:
        bb: Builder inside a dataflow block.
        node: The node with its inputs.
        proto: The same, for attributes in the form that TVM wants.

    Raises:
        Exception: TVM's converter failed; it raises errors of all kinds.
    """
    attrs: dict[str, Any] = {a.name: get_attribute_value(a) for a in proto.attribute}
    attrs = {name: tuple(value) if isinstance(value, list) else value for name, value in attrs.items()}
    attrs["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
    inputs = onnx_frontend.onnx_input()
    inputs.extend(node.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert = onnx_frontend._get_convert_map()[node.op_type].get_converter(node.since)
        return convert(bb, inputs, attrs, [{}, {}])
