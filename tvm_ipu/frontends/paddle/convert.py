"""A Paddle program as an ONNX model, operator by operator; names of tensors stay."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from onnx import ModelProto, helper

from tvm_ipu.base.errors import ModelError, OptionError, UnsupportedOperatorError
from tvm_ipu.frontends.cutting import cut_hint
from tvm_ipu.frontends.damage import refuse_damage
from tvm_ipu.frontends.onnx.inputs import unknown_names
from tvm_ipu.frontends.onnx.model_builder import ModelBuilder
from tvm_ipu.frontends.options import LoadOptions
from tvm_ipu.frontends.paddle import elementwise, shapes, windows
from tvm_ipu.frontends.paddle.context import Context
from tvm_ipu.frontends.paddle.pir import read_json
from tvm_ipu.frontends.paddle.program import Op, Program, read_program

RULES = elementwise.RULES | shapes.RULES | windows.RULES
"""Rules by type of operator."""

_OUTPUTS = ("Out", "Output", "Y")
"""The slot of an operator's result; others hold what training needs."""


def to_onnx(source: Path, options: LoadOptions) -> ModelProto:
    """The program in a ``.pdmodel`` or ``.json`` file with the parameters in ``options.weights``.

    Dimensions that the program leaves open stay open.

    Args:
        source: The program.
        options: Outputs, and the file of parameters; by default that beside the program with its name.

    Raises:
        ModelError: A file is missing or damaged, or they do not go together.
        UnsupportedOperatorError: There are operators of unknown types; all are listed.
        OptionError: An option does not fit the program.
    """
    program = _read(source, options)
    outputs = options.outputs or program.outputs
    made = [*program.inputs, *(name for op in program.ops for name in op.makes)]
    unknown = [name for name in outputs if name not in made]
    if unknown:
        raise OptionError(unknown_names("--output-arrays: there is no tensor", unknown, made))
    ops = _needed(program, outputs)
    unsupported = [op for op in ops if op.type not in RULES]
    if unsupported:
        raise UnsupportedOperatorError(
            f"{len(unsupported)} operators of the program cannot be compiled:"
            + "".join(f"\n  {op}" for op in unsupported),
            cut_hint(((op.reads, op.makes, op.type in RULES) for op in ops), program.inputs),
        )
    return _convert(program, ops, outputs)


def _read(source: Path, options: LoadOptions) -> Program:
    weights = options.weights or source.with_suffix(".pdiparams")
    if options.weights is None and not weights.exists():
        raise ModelError(
            f"'{source}' has no parameters: there is no '{weights}'",
            "name the file: --weight-file x.pdiparams",
        )
    return (read_json if source.suffix == ".json" else read_program)(source, weights)


def _needed(program: Program, outputs: Collection[str]) -> list[Op]:
    """The operators that some outputs depend on."""
    wanted, needed = set(outputs), []
    for op in reversed(program.ops):
        if wanted.intersection(op.makes):
            needed.append(op)
            wanted.update(op.reads)
    return needed[::-1]


def _convert(program: Program, ops: list[Op], outputs: Collection[str]) -> ModelProto:
    b = ModelBuilder("paddle")
    for name in program.inputs:
        variable = program.variables.get(name)
        if variable is None:
            raise ModelError(f"input '{name}' is not among the variables: the program is damaged")
        if variable.dtype is None:
            raise ModelError(f"input '{name}' has an element type that images do not have")
        b.input(name, helper.np_dtype_to_tensor_dtype(variable.dtype), variable.dims)
    context = Context(b, program)
    for op in ops:
        b.location = op.label
        with refuse_damage(op):
            made = RULES[op.type](context, op)
        names = _results(op)
        made = [made] if isinstance(made, str) else list(made)
        if len(made) < len(names):
            raise ModelError(f"{op}: {len(names)} results; {len(made)} are expected")
        for tensor, name in zip(made, names, strict=False):
            context.bind(name, tensor)
    for name in outputs:
        b.output(context.tensor(name))
    return b.model("paddle")


def _results(op: Op) -> list[str]:
    slot = next((slot for slot in _OUTPUTS if slot in op.outputs), None)
    return [*(op.outputs[slot] if slot else ()), *op.outputs.get("Indices", ())]
