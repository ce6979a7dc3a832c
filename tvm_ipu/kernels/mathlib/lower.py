"""The pass that replaces calls of mathematical functions by polynomials."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import tvm
import tvm_ffi
from tvm import DataType, tirx
from tvm.ir import Call, Expr, IRModule, Op

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.emit import lanes_of
from tvm_ipu.kernels.isa import hexagon_epilogue
from tvm_ipu.kernels.mathlib import exponential, logarithm, rounding, special, trigonometry
from tvm_ipu.kernels.mathlib.gelu import gelu
from tvm_ipu.kernels.mathlib.piecewise import lower_piecewise
from tvm_ipu.kernels.mathlib.terms import FORMATS, Terms, int_bits

Unary = Callable[[Terms, Expr], Expr]
Binary = Callable[[Terms, Expr, Expr], Expr]
Root = TypeVar("Root", tirx.PrimFunc, tirx.Stmt, Expr)

UNARY: dict[str, Unary] = {
    "exp": exponential.exp,
    "exp2": exponential.exp2,
    "exp10": exponential.exp10,
    "tanh": exponential.tanh,
    "sigmoid": exponential.sigmoid,
    "sinh": exponential.sinh,
    "cosh": exponential.cosh,
    "log": logarithm.log,
    "log2": logarithm.log2,
    "log10": logarithm.log10,
    "log1p": logarithm.log1p,
    "asinh": logarithm.asinh,
    "acosh": logarithm.acosh,
    "atanh": logarithm.atanh,
    "sin": trigonometry.sin,
    "cos": trigonometry.cos,
    "tan": trigonometry.tan,
    "asin": trigonometry.asin,
    "acos": trigonometry.acos,
    "atan": trigonometry.atan,
    "erf": special.erf,
    "gelu": gelu,
    "sqrt": rounding.sqrt,
    "rsqrt": rounding.rsqrt,
    "floor": rounding.floor,
    "ceil": rounding.ceil,
    "trunc": rounding.trunc,
    "round": rounding.nearbyint,  # TVM's round is half to even
    "nearbyint": rounding.nearbyint,
    "fabs": lambda t, x: t.abs(x),
}
BINARY: dict[str, Binary] = {
    "pow": special.power,
    "atan2": trigonometry.atan2,
    "hypot": rounding.hypot,
    "fmod": rounding.fmod,
    "copysign": rounding.copysign,
    "nextafter": rounding.nextafter,
    "ldexp": rounding.ldexp,
}
SCALAR_FOR_TVM = (
    *(
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "copysign",
        "erf",
        "fmod",
        "hypot",
        "isnan",
    ),
    *("ldexp", "log1p", "nearbyint", "nextafter", "rsqrt"),
)
for (
    _name
) in SCALAR_FOR_TVM:  # VectorizeLoop would take loops with these calls apart, one element after the other
    tvm.ir.register_op_attr(f"tirx.{_name}", "TVectorizable", True)

ROUND_TO_EVEN = ("tirx.round", "tirx.nearbyint")
EXTERNS = ("tirx.call_extern", "tirx.call_pure_extern")


def nearest_int32(target: Target, lanes: int) -> str | None:
    """LLVM's name of the instruction from float32 to the nearest int32, half to even; None where none is."""
    if target.arch == "hexagon":
        return "llvm.hexagon.F2.conv.sf2w" if lanes == 1 else None
    if target.arch == "aarch64" and lanes in (1, 2, 4):
        return "llvm.aarch64.neon.fcvtns"
    if target.arch == "x86_64" and "avx2" not in target.isa:
        # LLVM 22 makes lrint of a loaded vector an instruction that wants it aligned, and vectors of scalars
        return "llvm.x86.sse2.cvtps2dq" if lanes == 4 else None
    return None if target.arch == "arm" else "llvm.lrint"


def native_functions(target: Target) -> frozenset[str]:
    """Functions that the target's instruction set has, for scalars and vectors."""
    if target.arch == "hexagon":
        return frozenset()
    if "avx512" in target.isa:
        return frozenset({"sqrt", "round", "look_up"})
    if target.arch == "aarch64" or (target.arch == "x86_64" and target.isa & {"sse4.1", "sse4.2", "avx2"}):
        return frozenset({"sqrt", "round"})
    return frozenset({"sqrt"})


def lower_math(root: Root, target: Target) -> Root:
    """Replace calls of mathematical functions by branch-free arithmetic, scalar or vector.

    float32 and float64 are computed in their own format, float16 and bfloat16 in float32. Loops may be
    vectorised before or after; before is better, for TVM's simplifiers need long for the result.

    Args:
        root: Function, statement or expression.
        target: Chip; it decides which functions are left as instructions.
    """
    native = native_functions(target)
    entries = [
        (Call, partial(_lower_call, native=native)),
        (tirx.Mod, partial(_lower_mod, native=native)),
        (tirx.NE, _lower_not_equal),
    ]
    root = tvm_ffi.structural_map(root, (tirx.Cast, partial(_lower_cast, target=target)))
    lowered: Root = tvm_ffi.structural_map(root, entries)
    return lowered


def LowerMath(target: Target) -> tvm.transform.Pass:  # noqa: N802 (TVM names its passes like classes)
    """``lower_math`` as a pass; its place is right after VectorizeLoop."""

    def run(func: tirx.PrimFunc, _mod: IRModule, _context: tvm.transform.PassContext) -> tirx.PrimFunc:
        return lower_math(func, target)

    return tirx.transform.prim_func_pass(run, opt_level=0, name="LowerMath")


def _lower_call(call: Call, native: frozenset[str]) -> Expr:
    if not isinstance(call.op, Op):
        return call
    name, args = call.op.name, list(call.args)
    if name in EXTERNS and isinstance(args[0], tvm.ir.StringImm):
        # C's names: erff and erf
        symbol, args = args[0].value, args[1:]
        name = symbol if symbol in UNARY or symbol in BINARY else symbol.removesuffix("f")
    name = name.rsplit(".", 1)[-1]
    if name == "isnan":
        return _is_nan(args[0])
    if name == "piecewise":
        return _in_format(call, args, native, lower_piecewise)
    if name in UNARY and len(args) == 1:
        return _in_format(call, args, native, lambda t, x: UNARY[name](t, x[0]))
    if name in BINARY and len(args) == 2:
        return _in_format(call, args, native, lambda t, x: BINARY[name](t, x[0], x[1]))
    return call


def _lower_cast(cast: tirx.Cast, target: Target) -> Expr:
    lanes, bits = cast.ty.dtype.lanes, cast.ty.dtype.bits
    if "hvx" in target.isa and bits == 8 and 16 < lanes <= 32 and _is_vector(cast.value, "int32", lanes):
        t = Terms(FORMATS["float32"], lanes)
        return t.result(hexagon_epilogue.narrow(t, cast.value, str(cast.ty.dtype.with_lanes(1))))
    return _round_to_int32(cast, target)


def _round_to_int32(cast: tirx.Cast, target: Target) -> Expr:
    """``int32(round(x))`` in one or two instructions, where the target has them."""
    call, lanes = cast.value, cast.ty.dtype.lanes
    rounds = isinstance(call, Call) and isinstance(call.op, Op) and call.op.name in ROUND_TO_EVEN
    if not (rounds and _is_vector(cast, "int32", lanes)):
        return cast
    (x,) = call.args
    if _is_vector(call, "float64", lanes) and target.arch == "riscv64":
        return tirx.call_llvm_pure_intrin(cast.ty.dtype, "llvm.lrint", x)
    if not _is_vector(call, "float32", lanes):
        return cast
    if instruction := nearest_int32(target, lanes):
        return tirx.call_llvm_pure_intrin(cast.ty.dtype, instruction, x)
    t = Terms(FORMATS["float32"], lanes)
    inner, limits = _peel_limits(x)
    bound = max((abs(limit) for _, limit in limits), default=math.inf)
    limited = {kind for kind, _ in limits} == {tirx.Min, tirx.Max} and bound <= 2.0 ** (t.format.mantissa - 2)
    factors = _integer_product(inner) if "hvx" in target.isa else None
    if factors and (limited or not limits) and all(limit.is_integer() for _, limit in limits):
        value = hexagon_epilogue.round_product(t, *factors, limited)
        for kind, limit in reversed(limits):
            value = kind(value, t.int_const(int(limit)))
        return t.result(value)
    if not limited:
        return cast
    _, low_bits = t.round_small(x)
    return t.result(low_bits - t.int_const(int_bits(t.format.magic, t.format)))


def _peel_limits(x: Expr) -> tuple[Expr, list[tuple[type, float]]]:
    """``x`` without the minima and maxima with constants around it, and those, the outermost first."""
    limits = []
    while isinstance(x, tirx.Min | tirx.Max) and (limit := _constant(x.b)) is not None:
        limits.append((type(x), limit))
        x = x.a
    return x, limits


def _integer_product(x: Expr) -> tuple[Expr, Expr] | None:
    """``(a, m)`` where ``x`` is ``float32(a) * m`` for an int32."""
    if isinstance(x, tirx.Mul):
        for factor, other in ((x.a, x.b), (x.b, x.a)):
            if isinstance(factor, tirx.Cast) and _is_vector(factor.value, "int32", lanes_of(x)):
                return factor.value, other
    return None


def _is_vector(value: Expr, dtype: str, lanes: int) -> bool:
    return bool(value.ty.dtype == DataType(dtype).with_lanes(lanes))


def _constant(value: Expr) -> float | None:
    value = value.value if isinstance(value, tirx.Broadcast) else value
    return float(value.value) if isinstance(value, tirx.FloatImm) else None


def _lower_mod(mod: tirx.Mod, native: frozenset[str]) -> Expr:
    return _in_format(mod, [mod.a, mod.b], native, lambda t, x: rounding.fmod(t, x[0], x[1]))


def _lower_not_equal(node: tirx.NE) -> Expr:
    """``!=`` of floats, which TVM makes an ordered comparison: a NaN differs from everything."""
    if "float" not in node.a.ty.dtype:
        return node
    return tirx.Or(tirx.Or(node, _is_nan(node.a)), _is_nan(node.b))


def _in_format(
    call: Expr, args: list[Expr], native: frozenset[str], formula: Callable[[Terms, list[Expr]], Expr]
) -> Expr:
    """``formula`` of the arguments, in the format that computes results of the call's dtype."""
    dtype = call.ty.dtype
    if dtype.bits == 16 and "float" in dtype:  # float16, bfloat16
        wide = DataType("float32").with_lanes(dtype.lanes)
    elif dtype.is_float:
        wide = dtype
    else:
        return call
    t = Terms(FORMATS[f"float{wide.bits}"], wide.lanes, native)
    value = t.result(formula(t, [_convert(t, x) for x in args]))
    return value if wide == dtype else tirx.Cast(dtype, value)


def _convert(t: Terms, value: Expr) -> Expr:
    """An argument in the format's type; integers (of ``ldexp``) in the integer of its width."""
    wanted = t.float_dtype if "float" in value.ty.dtype else t.int_dtype
    return value if value.ty.dtype == wanted else tirx.Cast(wanted, value)


def _is_nan(value: Expr) -> Expr:
    dtype = value.ty.dtype
    if dtype.bits == 16:
        dtype = DataType("float32").with_lanes(dtype.lanes)
        value = tirx.Cast(dtype, value)
    t = Terms(FORMATS[f"float{dtype.bits}"], dtype.lanes)
    return t.to_bits(t.abs(value)) > t.int_const(t.format.inf_bits)
