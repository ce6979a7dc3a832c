"""Primitives that hold other functions: calls and loops of known length are written out."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_ipu.frontends.jax.context import Context, Rule, Value, refuse

MAX_STEPS = 4096
"""Steps up to which a loop is written out."""


def call(c: Context, eqn: Any) -> list[Value]:
    """The function's equations in place of the call."""
    jaxpr, consts = inner_function(eqn)
    return c.run(jaxpr, consts, [c.lazy(var) for var in eqn.invars])


def inner_function(eqn: Any) -> tuple[Any, list[Any]]:
    """The jaxpr that a call holds, and its constants."""
    found = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params)
    return (found.jaxpr, [np.asarray(v) for v in found.consts]) if hasattr(found, "consts") else (found, [])


def scan(c: Context, eqn: Any) -> list[Value]:
    """A loop over the first axis of some operands."""
    p = eqn.params
    length, fixed, carried = p["length"], p["num_consts"], p["num_carry"]
    if length > MAX_STEPS:
        raise refuse(eqn, f"a loop of {length} steps")
    jaxpr, jaxpr_consts = inner_function(eqn)
    values = [c.lazy(var) for var in eqn.invars[: fixed + carried]]
    consts, carry = values[:fixed], values[fixed:]
    rows = [c.full(var) for var in eqn.invars[fixed + carried :]]
    steps: list[list[Value]] = []
    for i in reversed(range(length)) if p["reverse"] else range(length):
        items = [_row(c, x, i) for x in rows]
        results = c.run(jaxpr, jaxpr_consts, [*consts, *carry, *items])
        carry = results[:carried]
        steps.append(results[carried:])
    if p["reverse"]:
        steps.reverse()
    stacked = []
    for number, var in enumerate(eqn.outvars[carried:]):
        parts = [_first_axis(c, step[number], var.aval.shape[1:]) for step in steps]
        known = all(isinstance(part, np.ndarray) for part in parts)
        empty = np.zeros(var.aval.shape, var.aval.dtype)
        stacked.append(np.concatenate(parts or [empty]) if known else c.add("Concat", *parts, axis=0))
    return [*carry, *stacked]


def _row(c: Context, x: Value, index: int) -> Value:
    if isinstance(x, np.ndarray):
        return np.asarray(x[index])
    return c.add("Gather", x, np.array(index), axis=0)


def _first_axis(c: Context, value: Value, shape: tuple[int, ...]) -> Value:
    """One step's result with an axis of one in front, in its full shape."""
    if isinstance(value, np.ndarray):
        return np.broadcast_to(value, shape)[None]
    if c.shape(value) != shape:
        value = c.add("Expand", value, np.array(shape, np.int64))
    return c.reshape(value, [1, *shape])


def while_loop(c: Context, eqn: Any) -> list[Value]:
    """A loop whose condition is known at every step."""
    p = eqn.params
    values = [c.lazy(var) for var in eqn.invars]
    split = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
    of_condition, of_body, carry = values[: split[0]], values[split[0] : split[1]], values[split[1] :]
    condition, body = p["cond_jaxpr"], p["body_jaxpr"]
    for _ in range(MAX_STEPS):
        (again,) = c.run(condition.jaxpr, condition.consts, [*of_condition, *carry])
        if not isinstance(again, np.ndarray):
            raise refuse(eqn, "a loop whose number of steps is computed")
        if not again.any():
            return carry
        carry = c.run(body.jaxpr, body.consts, [*of_body, *carry])
    raise refuse(eqn, f"a loop of more than {MAX_STEPS} steps")


def cond(c: Context, eqn: Any) -> list[Value]:
    """The chosen branch; where the choice is computed, all of them, and then a choice of results."""
    which, *operands = eqn.invars
    branches, values = eqn.params["branches"], [c.lazy(var) for var in operands]
    last = len(branches) - 1
    known = c.known(which)
    if known is not None:
        chosen = branches[min(max(int(known), 0), last)]
        return c.run(chosen.jaxpr, chosen.consts, values)
    results = [c.run(branch.jaxpr, branch.consts, values) for branch in branches]
    made = results[last]
    for number in reversed(range(last)):
        below = c.add("LessOrEqual", c.cast(c.lazy(which), np.int32), np.array(number, np.int32))
        made = [c.add("Where", below, *pair) for pair in zip(results[number], made, strict=True)]
    return made


CALLS = (
    "checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
    "jit", "pjit", "remat", "remat2", "xla_call",
)  # fmt: skip
RULES: dict[str, Rule] = {**dict.fromkeys(CALLS, call), "cond": cond, "scan": scan, "while": while_loop}
