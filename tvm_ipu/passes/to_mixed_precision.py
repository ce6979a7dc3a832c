"""Store tensors and weights in fp16 or bf16; inputs and outputs of the model keep their types.

    lv = R.add(x, const_f32)       ->      lv0 = R.astype(x, "float16")
                                           lv1 = R.add(lv0, const_f16)
                                           lv = R.astype(lv1, "float32")         (at an output only)

Kernels accumulate in float32 whatever the storage type. Operators whose intermediate results leave fp16's
range or lose too much in bf16's 8 bits stay in float32.
"""

from __future__ import annotations

import tvm
from tvm import relax

from tvm_ipu.passes.rewrite import Rewriter, constant, numpy_dtype, op_name, rewrite

KEEP_FLOAT32 = frozenset(
    f"relax.{name}"
    for name in (
        "nn.softmax", "nn.log_softmax", "nn.layer_norm", "nn.rms_norm", "nn.group_norm", "nn.instance_norm",
        "nn.batch_norm", "mean", "sum", "prod", "variance", "std", "cumsum", "cumprod", "power", "exp", "log",
        "erf", "nn.gelu", "sqrt", "rsqrt", "sin", "cos", "tan", "tanh", "argmax", "argmin", "topk", "sort",
        "argsort", "call_tir", "quantize", "dequantize", "image.resize2d", "vision.non_max_suppression",
        "vision.all_class_non_max_suppression", "vision.roi_align",
    )
)  # fmt: skip


def to_mixed_precision(module: tvm.ir.IRModule, dtype: str) -> tvm.ir.IRModule:
    """Convert float32 computation to ``dtype`` (``float16`` or ``bfloat16``) where that is safe."""
    output_dtypes = [str(field.dtype) for field in module["main"].body.body.ty.fields]
    cast = _Caster(dtype)

    def restore(rewriter: Rewriter, outputs: list[relax.Expr]) -> list[relax.Expr]:
        return [cast.cast(rewriter, out, wanted) for out, wanted in zip(outputs, output_dtypes, strict=True)]

    return rewrite(module, cast.rule, restore, typed=False)


class _Caster:
    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def rule(self, rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
        """Cast a call's arguments to the type that its operator computes in."""
        name = op_name(call)
        keep = name in KEEP_FLOAT32 or name.startswith("relax.call")
        if name == "relax.astype":
            source, wanted = call.args[0], str(call.attrs.dtype)
            return self.cast(rewriter, source, self.dtype if wanted == "float32" else wanted)
        wanted = "float32" if keep else self.dtype
        args = [self._convert(rewriter, arg, wanted) for arg in call.args]
        if keep:
            call = relax.Call(call.op, args, call.attrs, call.ty_args, call.span)
            result = rewriter.emit(call)
            return self._shrink(rewriter, result)
        return relax.Call(call.op, args, call.attrs)

    def _shrink(self, rewriter: Rewriter, result: relax.Var) -> relax.Expr:
        """Store a float32 result in the small type."""
        if isinstance(result.ty, relax.TupleType):
            fields = [rewriter.emit(relax.TupleGetItem(result, i)) for i in range(len(result.ty.fields))]
            return relax.Tuple([self._convert(rewriter, field, self.dtype) for field in fields])
        return self._convert(rewriter, result, self.dtype)

    def _convert(self, rewriter: Rewriter, arg: relax.Expr, dtype: str) -> relax.Expr:
        """``arg`` with its float tensors in ``dtype``."""
        if isinstance(arg, relax.Tuple):
            return relax.Tuple([self._convert(rewriter, field, dtype) for field in arg.fields])
        if not isinstance(arg.ty, relax.TensorType) or str(arg.ty.dtype) not in ("float32", self.dtype):
            return arg
        return self.cast(rewriter, arg, dtype)

    def cast(self, rewriter: Rewriter, arg: relax.Expr, dtype: str) -> relax.Expr:
        """``arg`` as ``dtype``."""
        if str(arg.ty.dtype) == dtype:
            return arg
        inner = rewriter.value(arg)
        if op_name(inner) == "relax.astype" and str(inner.args[0].ty.dtype) == dtype == "float32":
            return inner.args[0]  # float32 -> small -> float32 of a value that is still there in float32
        value = constant(arg)
        if value is not None:
            return relax.const(value.astype(numpy_dtype(dtype)))
        return rewriter.emit(relax.op.astype(arg, dtype))
