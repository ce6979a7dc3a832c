"""Multiply in fp16 or bf16, compute everything else in float32.

    lv0 = R.nn.conv2d(x, w)            lv0 = R.nn.conv2d(R.astype(x, "float16"), w16, out_dtype="float32")
    lv1 = R.add(lv0, b)           ->   lv1 = R.add(lv0, b)
    lv2 = R.nn.conv2d(lv1, v)          lv2 = R.nn.conv2d(R.astype(lv1, "float16"), v16, out_dtype="float32")

Operands of convolutions and matrix products are stored in 16 bits, sums and what follows them are float32.
The casts are fused into the kernels, so that what lies in memory between kernels is 16 bits wide, and biases,
normalisation, activations and softmax lose nothing. A tensor that a convolution and others read is stored
once, in 16 bits; one that only matrix products read in 16 bits is stored in both types: through a
transformer's residual sums, rounding would add up. Depthwise convolutions stay in float32: they are few
operations, and rounding their weights costs most. Inputs and outputs of the model keep their types.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import tvm
from tvm import relax

from tvm_ipu.base.model import first_node
from tvm_ipu.base.tensor import numpy_dtype
from tvm_ipu.passes.rewrite import (
    Rewriter,
    bindings,
    constant,
    node_names,
    op_name,
    rewrite,
    shape_of,
    used_vars,
)

PRODUCTS = frozenset({"relax.nn.conv2d", "relax.matmul"})
MOVES = frozenset(
    f"relax.{name}"
    for name in (
        "broadcast_to", "concat", "expand_dims", "flatten", "flip", "gather_elements", "permute_dims",
        "repeat", "reshape", "split", "squeeze", "strided_slice", "take", "tile", "nn.max_pool2d", "nn.relu",
    )
)  # fmt: skip
"""Operators that copy elements or choose among them: right in any type."""


def to_mixed_precision(
    module: tvm.ir.IRModule, dtype: str, float32_layers: Sequence[str] = ()
) -> tvm.ir.IRModule:
    """Convert products, but for those of ``float32_layers``, to operands of ``float16`` or ``bfloat16``."""
    output_dtypes = [str(field.dtype) for field in module["main"].body.body.ty.fields]
    cast = _Caster(module, dtype, frozenset(float32_layers))

    def restore(_: Rewriter, outputs: list[relax.Expr]) -> list[relax.Expr]:
        return [cast.to(out, wanted) for out, wanted in zip(outputs, output_dtypes, strict=True)]

    return rewrite(module, cast.rule, restore, typed=False)


class _Caster:
    def __init__(self, module: tvm.ir.IRModule, dtype: str, float32_layers: frozenset[str]) -> None:
        self.dtype = dtype
        nodes = node_names(module)
        self._float32_layers = frozenset(
            binding.var.name
            for binding in bindings(module["main"])
            if first_node(nodes.get(binding.var.name, binding.var.name)) in float32_layers
        )
        self._users: defaultdict[relax.Var, list[relax.VarBinding]] = defaultdict(list)
        for binding in bindings(module["main"]):
            for var in used_vars(binding.value):
                self._users[var].append(binding)
        self._wanted: dict[relax.Var, bool] = {}
        for binding in reversed(bindings(module["main"])):
            self._wanted[binding.var] = any(self._takes_half(user) for user in self._users[binding.var])
        self._casts: dict[tuple[relax.Expr, str], relax.Var] = {}
        self._rewriter: Rewriter | None = None

    def _takes_half(self, user: relax.VarBinding) -> bool:
        """True when an operator reads its operands in 16 bits."""
        name = op_name(user.value)
        if not name:  # a tuple or an element of one
            return self._wanted.get(user.var, False)
        if is_product(user.value):
            return user.var.name not in self._float32_layers
        return name in MOVES and self._wanted.get(user.var, False)

    def _read_by_convolution(self, var: relax.Var) -> bool:
        """True when a convolution reads the tensor in 16 bits, perhaps moved by other operators."""
        return any(
            op_name(user.value) == "relax.nn.conv2d" or self._read_by_convolution(user.var)
            for user in self._users[var]
            if self._takes_half(user)
        )

    def rule(self, rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
        """Cast a call's operands to the type that its operator reads, its result to what all read."""
        self._rewriter = rewriter
        var, name = rewriter.current, op_name(call)
        assert var is not None
        shared = len(self._users[var]) > 1 and self._read_by_convolution(var)
        if var.name not in self._float32_layers and is_product(
            rewriter.builder.normalize(self._in(call, "float32"))
        ):
            product = _with_float32_sum(self._in(call, self.dtype))
            result = rewriter.emit(product, var.name)
        elif name in MOVES:
            half = self._wanted.get(var, False) or any(
                str(getattr(arg.ty, "dtype", "")) == self.dtype for arg in call.args
            )
            return self._in(call, self.dtype if half else "float32")
        else:
            result = rewriter.emit(self._in(call, "float32"), var.name)
        if shared and isinstance(result.ty, relax.TensorType) and str(result.ty.dtype) == "float32":
            return self.to(result, self.dtype)
        return result

    def _in(self, call: relax.Call, dtype: str) -> relax.Call:
        args = [self.to(arg, dtype) for arg in call.args]
        types = call.ty_args if op_name(call).startswith("relax.call") else None
        return relax.Call(call.op, args, call.attrs, types, call.span)

    def to(self, arg: relax.Expr, dtype: str) -> relax.Expr:
        """``arg`` with its float tensors, where they are of the two types of this pass, as ``dtype``."""
        if isinstance(arg, relax.Tuple):
            return relax.Tuple([self.to(field, dtype) for field in arg.fields])
        have = str(arg.ty.dtype) if isinstance(arg.ty, relax.TensorType) else ""
        if have == dtype or have not in ("float32", self.dtype) or dtype not in ("float32", self.dtype):
            return arg
        value = constant(arg)
        if value is not None:
            return relax.const(value.astype(numpy_dtype(dtype)))
        assert self._rewriter is not None
        if (arg, dtype) not in self._casts:
            self._casts[arg, dtype] = self._rewriter.emit(relax.op.astype(arg, dtype))
        return self._casts[arg, dtype]


def is_product(call: relax.Expr) -> bool:
    """True for a convolution or matrix product of float32 that sums over more than one channel."""
    if op_name(call) not in PRODUCTS or str(call.ty.dtype) != "float32":
        return False
    return op_name(call) == "relax.matmul" or shape_of(call.args[1])[_weight_channels(call)] > 1


def _weight_channels(conv: relax.Call) -> int:
    return str(conv.attrs.kernel_layout).index("I")


def _with_float32_sum(product: relax.Call) -> relax.Call:
    """The product with float32 results."""
    if op_name(product) == "relax.matmul":
        return relax.op.matmul(*product.args, out_dtype="float32")
    a = product.attrs
    return relax.op.nn.conv2d(
        *product.args,
        strides=list(a.strides),
        padding=list(a.padding),
        dilation=list(a.dilation),
        groups=int(a.groups),
        data_layout=str(a.data_layout),
        kernel_layout=str(a.kernel_layout),
        out_layout=str(a.out_layout),
        out_dtype="float32",
    )
