"""Run quantised layers on integers.

    lv0 = R.dequantize(x, s0, z0)              lv1 = R.nn.conv2d(x, w, out_dtype="int32")
    lv1 = R.nn.conv2d(lv0, R.dequantize(w))    lv2 = R.add(lv1, b)
    lv2 = R.nn.relu(lv1)                  ->   lv3 = R.multiply(R.astype(lv2, "float32"), m)
    y = R.quantize(lv2, s1, z1)                y = R.astype(R.round(R.clip(lv3, 0, 255)), "uint8")

The formulas are those of docs/numerics.md. The float layers are kept beside the integer ones and go away as
dead code where nothing else reads them. What stays float is listed in an attribute of the module.
"""

from __future__ import annotations

import tvm

from tvm_ipu.base.model import BITS_ATTR, FLOAT_LAYERS_ATTR
from tvm_ipu.base.target import Target
from tvm_ipu.passes.integer.layers import Layers
from tvm_ipu.passes.integer.listing import float_layers
from tvm_ipu.passes.integer.lower import lower_conversions
from tvm_ipu.passes.rewrite import Rewriter, bindings, node_names, op_name, rewrite

CONVERSIONS = ("relax.quantize", "relax.dequantize")


def to_integer(module: tvm.ir.IRModule, target: Target) -> tvm.ir.IRModule:
    """Replace what lies between ``dequantize`` and ``quantize`` by operators on integers."""
    if not any(op_name(b.value) in CONVERSIONS for b in bindings(module["main"])):
        return module
    rewriter = Rewriter(module)
    layers = Layers(rewriter, target)
    rewritten = rewriter.run(layers.rule, layers.outputs, typed=False)
    listed = float_layers(module, rewritten, rewriter, layers.reasons)
    nodes = node_names(module)
    bits = [f"{nodes.get(name, name)}: {left} x {right}" for name, (left, right) in layers.bits.items()]
    lowered = rewrite(rewritten, lower_conversions)
    return lowered.with_attr(FLOAT_LAYERS_ATTR, listed).with_attr(BITS_ATTR, bits)
