"""See that a model for a chip with no float unit computes with integers.

Float numbers are allowed where an input that is fed as float32 becomes integers, and where integers become
the float32 of an output: the first and the last operator of a fixed model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import tvm
from tvm import relax

from tvm_ipu.base.chip import Chip
from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.model import FLOAT_LAYERS_ATTR
from tvm_ipu.base.target import Target
from tvm_ipu.passes.rewrite import bindings, op_name, used_vars

MOVES = frozenset(
    f"relax.{name}"
    for name in ("permute_dims", "reshape", "squeeze", "expand_dims", "strided_slice", "concat", "split")
)
TO_INTEGERS = MOVES | {f"relax.{name}" for name in ("multiply", "clip", "round", "minimum", "maximum")}
"""Float operators of a quantiser at an input."""
TO_FLOATS = MOVES | {f"relax.{name}" for name in ("astype", "multiply", "add")}
"""Float operators behind the last integers."""
PRODUCTS = ("relax.nn.conv2d", "relax.matmul")
MAX_NAMED = 8
"""Layers that a message names."""


def refuse_floats(module: tvm.ir.IRModule, target: Target) -> tvm.ir.IRModule:
    """The module itself.

    Args:
        module: Behind ``to_integer``.
        target: Chip; one with a float unit refuses nothing.

    Raises:
        ModelError: A layer computes in float, or a product has operands of bits that the chip does not take.
    """
    if target.chip is None:
        return module
    floats = _float_layers(module["main"])
    if floats:
        attributes = module.attrs or {}
        listed = [str(one) for one in attributes.get(FLOAT_LAYERS_ATTR, [])]
        reasons = dict(one.split(": ", 1) for one in listed)
        named = [f"'{name}'" + (f" ({reasons[name]})" if name in reasons else "") for name in floats]
        more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
        raise ModelError(
            f"target '{target.chip.name}' has no float unit, but {len(named)} layers compute in float: "
            f"{', '.join(named[:MAX_NAMED])}{more}",
            "quantise the inputs and results of these layers: calibrate the float model for this target",
        )
    _check_bits(module["main"], target.chip)
    return module


def _float_layers(main: relax.Function) -> list[str]:
    """Names of what computes in float and is neither an input's nor an output's conversion."""
    calls = {b.var: b.value for b in bindings(main)}
    readers: defaultdict[relax.Var, list[relax.Var | None]] = defaultdict(list)
    for var, value in calls.items():
        for used in used_vars(value):
            readers[used].append(var)
    for used in used_vars(main.body.body):
        readers[used].append(None)
    floats = [var for var in calls if _is_float(var)]
    inputs = {param for param in main.params if _is_float(param)}
    quantisers = set(inputs)
    for var in floats:
        operands = set(used_vars(calls[var]))
        if _is(calls[var], TO_INTEGERS) and operands <= quantisers:
            quantisers.add(var)
    _prune(quantisers, floats, readers, lambda reader: reader is not None and not _is_float(reader))
    dequantisers: set[relax.Var] = set()
    for var in floats:
        operands = {used for used in used_vars(calls[var]) if _is_float(used)}
        if _is(calls[var], TO_FLOATS) and operands <= dequantisers:
            dequantisers.add(var)
    _prune(dequantisers, floats, readers, lambda reader: reader is None)
    allowed = quantisers | dequantisers
    computed = [v for v in floats if isinstance(calls[v], relax.Call) and used_vars(calls[v])]
    return [str(v.name) for v in computed if v not in allowed]


def _prune(
    kept: set[relax.Var],
    floats: list[relax.Var],
    readers: Mapping[relax.Var, list[relax.Var | None]],
    is_end: Callable[[relax.Var | None], bool],
) -> None:
    """Take out of ``kept``, from the last on, what something else reads than ``kept`` and ends of a chain."""
    for var in reversed(floats):
        if var in kept and not all(is_end(reader) or reader in kept for reader in readers[var]):
            kept.remove(var)


def _check_bits(main: relax.Function, chip: Chip) -> None:
    for binding in bindings(main):
        if op_name(binding.value) not in PRODUCTS:
            continue
        bits = int(str(binding.value.args[0].ty.dtype).lstrip("uint"))
        if bits not in chip.convolution_bits:
            raise ModelError(
                f"layer '{binding.var.name}' has inputs of {bits} bits: not for target '{chip.name}'",
                f"allowed are {', '.join(map(str, chip.convolution_bits))}",
            )


def _is(value: relax.Expr, operators: frozenset[str]) -> bool:
    return isinstance(value, relax.Tuple | relax.TupleGetItem) or op_name(value) in operators


def _is_float(var: relax.Var) -> bool:
    types = var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]
    return any("float" in str(getattr(one, "dtype", "")) for one in types)
