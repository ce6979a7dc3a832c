"""The integer form of each layer, found as the layers come by in order."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ipu.base.model import POSITIONS_ATTR
from tvm_ipu.base.target import Target
from tvm_ipu.passes.integer import moves, products, requantize as rq
from tvm_ipu.passes.integer.choices import COMPARISONS, compared
from tvm_ipu.passes.integer.fixed_point import FixedPoint
from tvm_ipu.passes.integer.forms import FORMS, fields
from tvm_ipu.passes.integer.functions import of_sum, of_tensor
from tvm_ipu.passes.integer.known import not_quantised
from tvm_ipu.passes.integer.requantize import Arithmetic, FloatRequant, Result
from tvm_ipu.passes.integer.tensors import (
    LIMITS,
    Array,
    NoInteger,
    Quantized,
    Sum,
    Weight,
    along,
    int32_constant,
    parameters,
    real_constant,
    scalar_parameters,
    weight_of,
)
from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, shape_of

R = relax.op

MAX_SCALES = 2**16
"""Most different scales of a sum: a factor for each element is not one for each channel."""

ARITHMETIC: dict[str, Arithmetic] = {"float-requant": FloatRequant(), "integer-requant": FixedPoint()}
"""By the target's family of numerics."""

_SHIFTS = {"int8": ("uint8", 128), "uint8": ("int8", -128), "uint16": ("int16", -32768)}
"""Type of the other sign, and what is added to integers to get there."""


@dataclass(frozen=True)
class Stored:
    """How integers lie in memory.

    Attributes:
        dtype: Their type in memory.
        model_dtype: Their type in the model.
        shift: What was added to the model's integers; an array [channels, 1, 1 ...] where that differs.
    """

    dtype: str
    model_dtype: str
    shift: Array

    @property
    def is_plain(self) -> bool:
        """Whether the integers are the model's own."""
        return self.dtype == self.model_dtype and not self.shift.any()


class Layers:
    """Rewrites the calls of one module.

    Attributes:
        rewriter: The rewriting that they are part of.
        arithmetic: The target's family of numerics.
        tables: For results of tables: the tensor that the table was applied to, and the table.
        reasons: For each call that is left as it is, by its variable in the old module: why, or nothing.
        bits: For each product, by its layer: bits of its two operands.
    """

    def __init__(self, rewriter: Rewriter, target: Target) -> None:
        self.rewriter = rewriter
        self.reasons: dict[relax.Var, str] = {}
        self.bits: dict[str, tuple[int, int]] = {}
        self.arithmetic: Arithmetic = ARITHMETIC[target.numerics]
        self._activation = target.activation_dtype
        self._stored: dict[relax.Var, Stored] = {}
        self._sums: dict[relax.Var, Sum] = {}
        self.tables: dict[relax.Var, tuple[Quantized, Array]] = {}
        self._known: dict[relax.Expr, Quantized | None] = {}
        self._originals: dict[relax.Var, relax.Var] = {}

    def rule(self, rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
        """What stands in place of a call; None keeps it."""
        name = op_name(call)
        if name == "relax.dequantize":
            return self._dequantize(call)
        call = rewriter.builder.normalize(self._as_written(call))
        assert rewriter.current is not None
        reason = ""
        try:
            if name == "relax.quantize":
                return self._quantize(call)
            if name in COMPARISONS and (answer := compared(self, call)) is not None:
                return answer
            total = self._sum(call)
        except NoInteger as err:
            total, reason = None, str(err)
        if total is None:
            self.reasons[rewriter.current] = reason
            return call
        real = rewriter.emit(rq.dequantize_sum(total), self.rewriter.layer)
        self._sums[real] = total
        return real

    def outputs(self, _: Rewriter, results: list[relax.Expr]) -> list[relax.Expr]:
        """The module's outputs in the types that the model gives them."""
        return [self._original(result) for result in results]

    # -- integers in the type that the target prefers -----------------------------------------------

    def _preferred(self, dtype: str, zero: int) -> tuple[str, int]:
        """Type and zero point in which integers are kept in memory."""
        if dtype == "uint16" or (dtype in ("int8", "uint8") and dtype != self._activation):
            dtype, shift = _SHIFTS[dtype]
            return dtype, zero + shift
        return dtype, zero

    def _in_type(self, q: Quantized, dtype: str) -> Quantized:
        """The same numbers with integers of the other sign."""
        if q.dtype == dtype:
            return q
        other, shift = _SHIFTS[q.dtype]
        wide = R.add(R.astype(q.expr, "int32"), int32_constant(shift))
        return Quantized(self.rewriter.emit(R.astype(wide, other)), other, q.scale, q.zero + shift)

    def _original(self, expr: relax.Expr) -> relax.Expr:
        """A stored tensor in the type that the model gives it."""
        if not isinstance(expr, relax.Var) or expr not in self._stored:
            return expr
        stored = self._stored[expr]
        if stored.is_plain:
            return expr
        if expr not in self._originals:
            wide = R.subtract(R.astype(expr, "int32"), int32_constant(stored.shift))
            self._originals[expr] = self.rewriter.emit(R.astype(wide, stored.model_dtype))
        return self._originals[expr]

    def _as_written(self, call: relax.Call) -> relax.Call:
        """The call with operands in the model's types."""
        args = [
            relax.Tuple([self._original(f) for f in a.fields])
            if isinstance(a, relax.Tuple)
            else self._original(a)
            for a in call.args
        ]
        types = call.ty_args if op_name(call).startswith("relax.call") else None
        return relax.Call(call.op, args, call.attrs, types, call.span)

    def _store(self, expr: relax.Expr, stored: Stored) -> relax.Var:
        """Bind integers, and remember how they lie in memory."""
        known = self._stored.get(expr) if isinstance(expr, relax.Var) else None
        fresh = not isinstance(expr, relax.Var) or (
            known is not None and known.model_dtype != stored.model_dtype
        )
        var = self.rewriter.emit(expr, self.rewriter.layer) if fresh else expr
        self._stored[var] = stored
        return var

    # -- what a float value stands for ----------------------------------------------------------------

    def _dequantize(self, call: relax.Call) -> relax.Expr | None:
        stored = self._stored.get(call.args[0]) if isinstance(call.args[0], relax.Var) else None
        if stored is None:
            return None
        zero, shift = constant(call.args[2]), stored.shift.ravel()
        if zero is None or shift.size > max(zero.size, 1):
            return relax.Call(call.op, [self._original(call.args[0]), *call.args[1:]], call.attrs)
        values = zero + shift.reshape(zero.shape if shift.size == zero.size else ())
        shifted, axis = make_constant(values.astype(stored.dtype)), int(call.attrs.axis)
        return R.dequantize(call.args[0], call.args[1], shifted, axis=axis, out_dtype="float32")

    def quantized(self, expr: relax.Expr) -> Quantized | None:
        """The 8- or 16-bit tensor that a float value is made of by moves only, or None."""
        if expr not in self._known:
            try:
                self._known[expr] = self._find_quantized(expr)
            except NoInteger:
                self._known[expr] = None
        return self._known[expr]

    def _find_quantized(self, expr: relax.Expr) -> Quantized | None:
        call = self.rewriter.value(expr)
        if isinstance(call, relax.TupleGetItem):
            parts = self.quantized(call.tuple_value)
            return parts and parts.like(self.rewriter.emit(relax.TupleGetItem(parts.expr, call.index)))
        name = op_name(call)
        if name == "relax.dequantize":
            return self._leaf(call)
        if name == "relax.concat":
            return self._same_concat(call)
        if name == "relax.call_tir" and (axis := moves.gather_axis(self.rewriter, call)) is not None:
            data, positions = call.args[1].fields
            source = self.quantized(data)
            return source and source.like(moves.gathered(self.rewriter, source.expr, positions, axis))
        if picked := self.rewriter.attribute(call, POSITIONS_ATTR):
            source = self.quantized(call.args[1].fields[0])
            return source and source.like(moves.picked(self.rewriter, source.expr, json.loads(picked)))
        if name in ("relax.maximum", "relax.minimum"):
            return self._one_sided(call)
        if name in moves.MOVES:
            source = self.quantized(call.args[0])
            return source and source.like(self.rewriter.emit(moves.moved(call, source)))
        return None

    def _one_sided(self, call: relax.Call) -> Quantized | None:
        """The part of a tensor on one side of 0."""
        source, bound = self.quantized(call.args[0]), constant(call.args[1])
        if source is None or bound is None or bound.any():
            return None
        zero = make_constant(np.asarray(source.zero, source.dtype))
        return source.like(self.rewriter.emit(relax.Call(call.op, [source.expr, zero])))

    def _leaf(self, call: relax.Call) -> Quantized | None:
        if str(call.attrs.out_dtype) != "float32":
            return None
        dtype = str(call.args[0].ty.dtype)
        if dtype not in ("int8", "uint8", "int16", "uint16"):
            return None
        scale, zero = scalar_parameters(call)
        if dtype == "uint16":
            return self._in_type(Quantized(call.args[0], dtype, scale, zero), "int16")
        wanted, _ = self._preferred(dtype, zero)
        return self._in_type(Quantized(call.args[0], dtype, scale, zero), wanted)

    def _same_concat(self, call: relax.Call) -> Quantized | None:
        parts = [self.quantized(field) for field in fields(self.rewriter, call)]
        first = parts[0]
        if first is None or any(p is None or p.like(first.expr) != first for p in parts):
            return None
        joined = R.concat([p.expr for p in parts if p is not None], call.attrs.axis)
        return first.like(self.rewriter.emit(joined))

    def total(self, expr: relax.Expr) -> Sum | None:
        """The sums that a value stands for, or None."""
        return self._sums.get(expr) if isinstance(expr, relax.Var) else None

    # -- operators whose results are sums ---------------------------------------------------------------

    def _sum(self, call: relax.Call) -> Sum | None:
        """The sums that a float operator stands for; None where it is none."""
        name = op_name(call)
        if name in ("relax.nn.conv2d", "relax.matmul"):
            return self._product(call)
        if name in ("relax.add", "relax.subtract", "relax.multiply", "relax.divide"):
            return self._with_constant(call)
        total = self.total(call.args[0]) if call.args else None
        return total and moves.moved_sum(call, total)

    def _product(self, call: relax.Call) -> Sum | None:
        if str(call.ty.dtype) != "float32":
            return None
        x, weight = self.quantized(call.args[0]), weight_of(self.rewriter, call.args[1])
        if x is None and weight is not None and op_name(call) == "relax.nn.conv2d":
            return self._depthwise(call, weight)
        if x is None:
            raise not_quantised(call.args[0])
        if op_name(call) == "relax.nn.conv2d":
            if weight is None:
                raise NoInteger("its weights are not quantised constants")
            return self._noted(products.conv2d(self.rewriter, call, x, weight), x, weight)
        if weight is not None:
            return self._noted(products.matmul(self.rewriter, x, weight), x, weight)
        other = self.quantized(call.args[1])
        if other is None:
            raise not_quantised(call.args[1])
        other = other if other.is_short else self._in_type(other, "int8")
        return self._noted(products.matmul_both(self.rewriter, x, other), x, other)

    def _noted(self, total: Sum, left: Quantized, right: Quantized | Weight) -> Sum:
        """The sums of a product, whose operands' bits are remembered."""
        self.bits[self.rewriter.layer] = (left.bits, right.bits)
        return total

    def _depthwise(self, call: relax.Call, weight: Weight) -> Sum:
        """A convolution whose groups are the channels, of a tensor with a scale for each of them."""
        source, channels = self.rewriter.value(call.args[0]), shape_of(call.args[0])[1]
        if op_name(source) != "relax.dequantize" or str(source.args[0].ty.dtype) not in LIMITS:
            raise not_quantised(call.args[0])
        scale, zero = parameters(source)
        one = (int(call.attrs.groups), int(source.attrs.axis), np.unique(zero).size) == (channels, 1, 1)
        if not one:
            raise NoInteger("scales of its input differ between channels, or zero points do")
        x = Quantized(source.args[0], str(source.args[0].ty.dtype), 1.0, int(zero.flat[0]))
        total = products.conv2d(self.rewriter, call, self._in_type(x, self._preferred(x.dtype, 0)[0]), weight)
        outputs = np.repeat(np.broadcast_to(scale.ravel(), (channels,)), shape_of(call)[1] // channels)
        return self._noted(total, x, weight).times(outputs.reshape(1, -1, 1, 1))

    def _with_constant(self, call: relax.Call) -> Sum | None:
        """Sums plus a bias, or times a factor."""
        a, b = call.args
        name = op_name(call)
        if self.total(a) is None and name in ("relax.add", "relax.multiply"):
            a, b = b, a
        total, value = self.total(a), real_constant(self.rewriter, b)
        if total is None or value is None or shape_of(call) != shape_of(a):
            return None
        if name in ("relax.add", "relax.subtract"):
            bias = value if name == "relax.add" else -value
            return products.add_constant(self.rewriter, total, bias)
        factor = value if name == "relax.multiply" else 1 / value
        scaled = total.times(factor)
        return scaled if np.isfinite(scaled.scale).all() and scaled.scale.size <= MAX_SCALES else None

    # -- quantize: the end of a layer ---------------------------------------------------------------------

    def _quantize(self, call: relax.Call) -> relax.Expr:
        dtype = str(call.attrs.out_dtype)
        if str(call.args[0].ty.dtype) != "float32":
            return call
        scales, zeros = parameters(call)
        kept, shift = self._preferred(dtype, 0)
        if kept not in LIMITS:
            return call
        if scales.size > 1 or zeros.size > 1:
            return self._quantize_channels(call, kept, zeros + shift)
        result = Result.of(kept, float(scales.flat[0]), int(zeros.flat[0]) + shift)
        found = self.integer_form(call.args[0], result)
        expr = rq.quantize(call.args[0], result) if found is None else found
        return self._store(expr, Stored(kept, dtype, np.asarray(shift)))

    def _quantize_channels(self, call: relax.Call, dtype: str, zeros: Array) -> relax.Expr:
        """``quantize`` with parameters for each channel, which get one zero point if the range allows it."""
        scales, _ = parameters(call)
        rank, axis = len(shape_of(call)), int(call.attrs.axis)
        count = shape_of(call)[axis]
        scales, zeros = (along(np.broadcast_to(p.ravel(), (count,)), axis, rank) for p in (scales, zeros))
        inner, wide = self._without_clip(call.args[0], Result(dtype, scales, zeros, *LIMITS[dtype]))
        steps = [np.asarray(bound) - zeros for bound in (wide.low, wide.high)]
        zero = int(LIMITS[dtype][0] - steps[0].min())
        if zero + steps[1].max() > LIMITS[dtype][1]:
            raise NoInteger("zero points of its result differ between channels")
        result = Result(dtype, scales, zero, zero + steps[0], zero + steps[1])
        total = self.total(inner)
        expr = rq.quantize(inner, result) if total is None else self.arithmetic.requantize(total, result)
        model_dtype = str(call.attrs.out_dtype)
        model_zeros = along(np.broadcast_to(parameters(call)[1].ravel(), (count,)), axis, rank)
        return self._store(expr, Stored(dtype, model_dtype, zero - model_zeros))

    def integer_form(self, real: relax.Expr, result: Result) -> relax.Expr | None:
        """Integers of a float value from those of its operands; None where it stays float."""
        inner, clipped = self._without_clip(real, result)
        same = self.quantized(inner)
        if same is not None and not isinstance(result.scale, np.ndarray):
            return self._requantized(same, clipped)
        total = self.total(inner)
        if total is not None:
            return self.arithmetic.requantize(total, clipped)
        if isinstance(result.scale, np.ndarray):
            return None
        for function in (of_tensor, of_sum):
            found = function(self, real, result)
            if found is not None:
                return found
        call = self.rewriter.value(inner)
        form = FORMS.get(op_name(call))
        if form is None:
            return None
        try:
            return form(self, call, clipped)
        except NoInteger as err:
            origin = self.rewriter.origin(inner)
            if origin is not None:
                self.reasons[origin] = str(err)
            return None

    def _without_clip(self, real: relax.Expr, result: Result) -> tuple[relax.Expr, Result]:
        """A value before ReLUs and clips, which become bounds of the integers."""
        call = self.rewriter.value(real)
        if op_name(call) == "relax.nn.relu":
            return self._without_clip(call.args[0], result.clipped(0.0, np.inf))
        if op_name(call) == "relax.clip":
            low, high = (float(bound.value) for bound in call.args[1:])
            return self._without_clip(call.args[0], result.clipped(low, high))
        return real, result

    def _requantized(self, q: Quantized, result: Result) -> relax.Expr:
        """The tensor itself where its integers stay as they are."""
        if result == Result.of(q.dtype, result.single_scale, q.zero) and q.scale == result.scale:
            return q.expr
        return self.arithmetic.add([q], result)
