"""The passes, in order, from an imported Relax module to fused kernels."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial

import tvm
from tvm import relax

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.model import VIEW_OPS
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.target import Target
from tvm_ipu.passes.flatten_depth import flatten_depth
from tvm_ipu.passes.fold_constants import fold_constants
from tvm_ipu.passes.fold_division import fold_division
from tvm_ipu.passes.fold_scale import fold_scale
from tvm_ipu.passes.fuse_attention import fuse_attention
from tvm_ipu.passes.fuse_gelu import fuse_gelu, lower_gelu
from tvm_ipu.passes.fuse_operators import fuse_operators
from tvm_ipu.passes.join_operands import join_operands
from tvm_ipu.passes.lower_operators import lower_operators
from tvm_ipu.passes.mark_parts import mark_parts
from tvm_ipu.passes.refuse_floats import refuse_floats
from tvm_ipu.passes.simplify_transposes import simplify_transposes
from tvm_ipu.passes.sink_reshapes import sink_reshapes
from tvm_ipu.passes.sink_transposes import sink_transposes
from tvm_ipu.passes.to_integer import to_integer
from tvm_ipu.passes.to_mixed_precision import to_mixed_precision
from tvm_ipu.passes.to_nhwc import to_nhwc

Pass = Callable[[tvm.ir.IRModule], tvm.ir.IRModule]
AfterPhase = Callable[[str, tvm.ir.IRModule], None]
"""Called with a phase's name and the module after it."""

STORAGE_DTYPE = {"fp16": "float16", "bf16": "bfloat16"}

ANY_PRECISION = "layout"
"""The last of the phases that do the same whatever the precision is."""


def phases(target: Target, options: CompileOptions) -> dict[str, list[Pass]]:
    """Passes by phase; a phase ends where ``--dump-ir`` writes the module."""
    precision: list[Pass] = []
    if options.precision != "fp32":
        precision = [
            partial(
                to_mixed_precision,
                dtype=STORAGE_DTYPE[options.precision],
                float32_layers=options.float32_layers,
            ),
            fold_constants,
        ]
    return {
        "user": [load_user_pass(spec) for spec in options.passes],
        "integer": [
            relax.transform.CanonicalizeBindings(),
            fuse_gelu,
            partial(to_integer, target=target),  # before constants fold: it reads integer weights
            partial(refuse_floats, target=target),
        ],
        "canonical": [
            fold_constants,
            sink_reshapes,
            fold_division,
            fuse_gelu,
            fold_scale,  # before to_nhwc: it reads OIHW weights
            simplify_transposes,
        ],
        "layout": [
            to_nhwc,
            flatten_depth,
            fold_constants,
            simplify_transposes,
            sink_transposes,
            simplify_transposes,
            sink_reshapes,
            fold_constants,
        ],
        "precision": precision,
        "kernels": [
            fuse_attention,
            sink_transposes,  # behind the cast of attention's result
            simplify_transposes,
            join_operands,
            mark_parts,
            lower_gelu,
            partial(lower_operators, target=target, winograd=options.winograd),
            relax.transform.LegalizeOps(skip_ops=list(VIEW_OPS)),
            relax.transform.AnnotateTIROpPattern(),
            fuse_operators,
            relax.transform.FuseTIR(),
            relax.transform.DeadCodeElimination(),
        ],
    }


def run_phases(
    module: tvm.ir.IRModule,
    target: Target,
    options: CompileOptions,
    after: AfterPhase | None = None,
    behind: str = "",
    last: str = "",
) -> tvm.ir.IRModule:
    """Run all phases, or those behind one and up to another.

    Args:
        module: The module as imported, or as the phase ``behind`` left it.
        target: Chip to compile for.
        options: How to compile.
        after: Told the module after each phase.
        behind: Phase that was the last of an earlier call.
        last: Phase to end with.
    """
    todo = phases(target, options)
    start = list(todo).index(behind) + 1 if behind else 0
    for name, passes in list(todo.items())[start:]:
        for one in passes:
            module = one(module)
            if options.verify:
                relax.analysis.well_formed(module)
        if after is not None:
            after(name, module)
        if name == last:
            break
    return module


def load_user_pass(spec: str) -> Pass:
    """A user's own pass, given as ``module:function``.

    Raises:
        OptionError: The module or function does not exist.
    """
    module_name, _, function = spec.partition(":")
    if not module_name or not function:
        raise OptionError(f"--pass: '{spec}' is not of the form module:function", _PASS_FORM)
    try:
        found = getattr(importlib.import_module(module_name), function)
    except AttributeError as err:
        raise OptionError(f"--pass: module '{module_name}' has no function '{function}'", _PASS_FORM) from err
    except ModuleNotFoundError as err:
        raise OptionError(
            f"--pass: there is no module '{err.name}'",
            "put its folder into the environment variable PYTHONPATH",
        ) from err
    except Exception as err:  # whatever the user's module raises
        raise _failed(f"cannot import module '{module_name}'", err) from err
    if not callable(found):
        raise OptionError(f"--pass: '{spec}' is not a function but a {type(found).__name__}", _PASS_FORM)
    return partial(_run_user_pass, found, spec)


def _run_user_pass(user_pass: Pass, spec: str, module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    try:
        result = user_pass(module)
    except Exception as err:  # whatever the user's pass raises
        raise _failed(f"'{spec}' failed", err) from err
    if not isinstance(result, tvm.ir.IRModule):
        raise OptionError(f"--pass: '{spec}' returned {type(result).__name__}", _PASS_FORM)
    if "main" not in {var.name_hint for var in result.get_global_vars()}:
        raise OptionError(f"--pass: '{spec}' returned a module without 'main'", _PASS_FORM)
    try:
        relax.analysis.well_formed(result)
    except Exception as err:  # TVM's own
        raise _failed(f"'{spec}' returned a module that is not well-formed", err) from err
    return result


def _failed(what: str, err: Exception) -> OptionError:
    lines = str(err).strip().splitlines() or [""]
    return OptionError(f"--pass: {what}: {type(err).__name__}: {lines[0]}", "-v shows where")


_PASS_FORM = "a pass takes a Relax module and returns one with the function 'main': docs/getting-started.md"
