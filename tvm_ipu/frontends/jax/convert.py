"""A JAX function as an ONNX model: it is followed with example arguments, and each equation becomes nodes.

Primitives without a rule become nodes of the domain ``jax``, which the loader refuses together, with their
lines. Arguments that are trees of arrays become one input for each leaf, named as in Python: ``params['w']``.
Arrays that the function encloses become weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from tvm_ipu.base.errors import OptionError
from tvm_ipu.frontends.extras import require
from tvm_ipu.frontends.jax import control, elementwise, products, shapes
from tvm_ipu.frontends.jax.context import Context, Rule
from tvm_ipu.frontends.jax.script import read_script
from tvm_ipu.frontends.onnx.model_builder import ModelBuilder
from tvm_ipu.frontends.options import LoadOptions

RULES: dict[str, Rule] = elementwise.RULES | products.RULES | shapes.RULES | control.RULES
"""Rules by primitive."""


def to_onnx(source: Callable[..., Any] | Path, options: LoadOptions) -> ModelProto:
    """The computation of a function for arguments like ``options.example_input``.

    Args:
        source: The function, jitted or not, or a Python file that has it.
        options: Example arguments: one array, arguments in order (list or tuple) or by name (dict); or the
            shapes and types of arguments that are arrays.

    Raises:
        ModelError: The file fails, or JAX cannot follow the function with these arguments.
        OptionError: Example arguments are missing or do not fit the function.
        ToolError: JAX is missing.
    """
    jax = require("jax", extra="jax")
    if isinstance(source, Path):
        source, options = read_script(source, options)
    args, kwargs = _arguments(jax, source, options)
    try:
        closed, out_shape = jax.make_jaxpr(source, return_shape=True)(*args, **kwargs)
    except (TypeError, ValueError) as err:
        reason = str(err).strip().splitlines()[0]
        raise OptionError(f"example_input does not fit the function: {reason}") from err
    b = ModelBuilder(getattr(source, "__name__", "model"))
    names = _input_names(jax, source, args, kwargs)
    for name, var in zip(names, closed.jaxpr.invars, strict=True):
        b.input(name, helper.np_dtype_to_tensor_dtype(np.dtype(var.aval.dtype)), tuple(var.aval.shape))
    context = Context(b, RULES)
    results = context.run(closed.jaxpr, [np.asarray(v) for v in closed.consts], names)
    for name, value, var in zip(
        _output_names(jax, out_shape, names), results, closed.jaxpr.outvars, strict=True
    ):
        b.location = name
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(np.broadcast_to(value, var.aval.shape))
        elif b.shape(value) != tuple(var.aval.shape):
            value = b.add("Expand", value, np.array(var.aval.shape, np.int64))
        b.output(b.rename(b.add("Identity", value), name))
    return b.model("jax")


def _arguments(jax: Any, source: Any, options: LoadOptions) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named example arguments."""
    example = options.example_input
    if example is None:
        return _from_shapes(jax, source, options)
    if isinstance(example, dict):
        parameters = _parameters(source)
        if not parameters or set(example) <= set(parameters):
            return (), dict(example)
        return (example,), {}
    return (tuple(example), {}) if isinstance(example, list | tuple) else ((example,), {})


def _from_shapes(jax: Any, source: Any, options: LoadOptions) -> tuple[tuple[Any, ...], dict[str, Any]]:
    given, types = options.input_shapes, options.input_types
    shapes = list(given.values()) if isinstance(given, Mapping) else list(given)
    names = list(given) if isinstance(given, Mapping) else _parameters(source)[: len(shapes)]
    if not shapes or any(dim < 1 for shape in shapes for dim in shape):
        raise OptionError(
            "a JAX function needs example arguments", "give example_input, or input_shape with numbers only"
        )
    if not isinstance(types, Mapping):
        types = dict(zip(names, types, strict=False))
    structs = [
        jax.ShapeDtypeStruct(tuple(shape), np.dtype(types.get(name, "float32")))
        for name, shape in zip(names, shapes, strict=True)
    ]
    return (
        ((), dict(zip(names, structs, strict=True))) if isinstance(given, Mapping) else (tuple(structs), {})
    )


def _parameters(source: Any) -> list[str]:
    try:
        return list(inspect.signature(source).parameters)
    except (TypeError, ValueError):
        return []


def _input_names(jax: Any, source: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """A name for each leaf of the arguments, in the order of the jaxpr's."""
    parameters = _parameters(source)
    fixed = [p for p in parameters if p not in kwargs]
    names = []
    for i, arg in enumerate(args):
        root = fixed[i] if i < len(fixed) else f"arg{i}"
        names += [root + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(arg)]
    for key in sorted(kwargs):
        leaves = jax.tree_util.tree_leaves_with_path(kwargs[key])
        names += [key + jax.tree_util.keystr(path) for path, _ in leaves]
    return names


def _output_names(jax: Any, out_shape: Any, taken: list[str]) -> list[str]:
    """``output``, ``output_1`` for the second of a tuple, ``output['x']`` for one of a dictionary."""
    names = []
    for path, _ in jax.tree_util.tree_leaves_with_path(out_shape):
        plain = len(path) == 1 and hasattr(path[0], "idx")
        names.append(f"output_{path[0].idx}" if plain else "output" + jax.tree_util.keystr(path))
    return [f"{name}/result" if name in taken else name for name in names]
