"""Conversions between element types."""

from __future__ import annotations

from onnx import helper
from tvm import relax, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops import small
from tvm_ipu.frontends.onnx.ops.common import elementwise, required
from tvm_ipu.frontends.onnx.ops.types import convert, element_type


@converter("Cast")
def cast_op(ctx: Context, node: Node) -> relax.Expr:
    """Between bool, integers and floats of all widths; floats out of range saturate."""
    label = str(helper.tensor_dtype_to_np_dtype(int(node.attrs["to"])).name)
    return _converted(ctx, node, label if small.is_small(label) else element_type(int(node.attrs["to"])))


def _converted(ctx: Context, node: Node, label: str) -> relax.Expr:
    """The input in the type called ``label``."""
    x = required(node, 0, "input")
    if not small.is_small(label):
        return convert(ctx, x, label)
    if node.type(0) == label:
        return x
    round_mode = str(node.attrs.get("round_mode", "up"))
    return small.to_small(ctx, x, label, bool(node.attrs.get("saturate", 1)), round_mode)


@converter("CastLike")
def cast_like(ctx: Context, node: Node) -> relax.Expr:
    """As Cast."""
    target = node.type(1)
    return _converted(
        ctx, node, target if small.is_small(target) else ctx.dtype(required(node, 1, "target_type"))
    )


@converter("BitCast")
def bit_cast(ctx: Context, node: Node) -> relax.Expr:
    """Between types of the same width of 8 bits or more, except bool."""
    x, dtype = required(node, 0, "input"), element_type(int(node.attrs["to"]))
    if small.is_small(node.type(0)):
        raise UnsupportedNode(
            f"its input is {node.type(0)}; allowed are types of 8 bits or more that numpy has"
        )
    if "bool" in (dtype, ctx.dtype(x)):
        return elementwise(ctx, "bit_cast", lambda v: v.astype(dtype), x, dtype=dtype)
    return elementwise(ctx, "bit_cast", lambda v: tirx.reinterpret(dtype, v), x, dtype=dtype, widen=False)
