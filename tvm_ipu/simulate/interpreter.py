"""The fixed simulator's core: a quantised network computed in numpy, operator by operator.

It reads the Relax module behind the phase ``integer`` (passes/pipeline.py), where every layer is written in
integers as docs/numerics.md defines them. It has nothing in common with fusion, kernels and code generation,
and an image must give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax
from tvm.ir.expr import GenericConst

from tvm_ipu.base.errors import ModelError, RunError
from tvm_ipu.base.model import FLOAT_LAYERS_ATTR, Model
from tvm_ipu.simulate.fallback import compile_call, tensors
from tvm_ipu.simulate.operators import OPERATORS, Function

Array = NDArray[Any]

Observer = Callable[[str, Array], None]
"""Told the name and value of each layer's result."""


@dataclass
class _Step:
    """One binding.

    Attributes:
        var: What it binds.
        value: What it is bound to.
        last: Variables that nothing behind it reads.
        function: For a call: what it does; made when it is first run.
        operands: For a call: the operands that the function takes.
    """

    var: relax.Var
    value: relax.Expr
    last: list[relax.Var]
    function: Function | None
    operands: list[relax.Expr]


class Interpreter:
    """Computes a model.

    Args:
        model: A quantised model behind the phase ``integer``.

    Attributes:
        inputs: What ``run`` takes.
        outputs: What it gives.
        float_layers: Layers that compute in float, ``name: reason``: an image's numbers may differ there.
        compiled: Layers that TVM's definitions compute, for want of one here.
    """

    def __init__(self, model: Model) -> None:
        self.inputs, self.outputs = model.inputs, model.outputs
        self._module = model.module
        main = model.module["main"]
        self._params, self._result = list(main.params), main.body.body
        attributes: Any = model.module.attrs or {}
        self.float_layers = [str(one) for one in attributes.get(FLOAT_LAYERS_ATTR, [])]
        self.compiled: list[str] = []
        bindings = [binding for block in main.body.blocks for binding in block.bindings]
        needed = set(_variables(self._result))
        self._steps: list[_Step] = []
        for binding in reversed(bindings):
            used = [v for v in dict.fromkeys(_variables(binding.value)) if v not in needed]
            needed.update(used)
            self._steps.insert(0, _Step(binding.var, binding.value, used, None, []))
        self._constants: dict[relax.Expr, Array] = {}

    def run(self, feeds: Mapping[str, Array], observe: Observer | None = None) -> dict[str, Array]:
        """The outputs by name.

        Args:
            feeds: An array for each input, of its shape and type.
            observe: Told every layer's result as it comes.

        Raises:
            RunError: An input is missing, or its array does not fit.
            ModelError: An operator has no definition.
        """
        values: dict[relax.Var, Any] = {}
        for var, spec in zip(self._params, self.inputs, strict=True):
            if spec.name not in feeds:
                raise RunError(f"input '{spec.name}' is missing", f"given are {', '.join(feeds) or 'none'}")
            array = np.asarray(feeds[spec.name])
            if array.shape != spec.shape or array.dtype.name != spec.dtype.label:
                raise RunError(f"input '{spec.name}' is {array.dtype}{array.shape}", f"it takes {spec}")
            values[var] = array
        for step in self._steps:
            values[step.var] = self._compute(step, values)
            if observe is not None and isinstance(values[step.var], np.ndarray):
                observe(str(step.var.name), values[step.var])
            for var in step.last:
                del values[var]
        results = self._value(self._result, values)
        return {
            spec.name: np.ascontiguousarray(found).reshape(found.shape)
            for spec, found in zip(self.outputs, results, strict=True)
        }

    def _compute(self, step: _Step, values: Mapping[relax.Var, Any]) -> Any:
        if not isinstance(step.value, relax.Call):
            return self._value(step.value, values)
        if step.function is None:
            step.operands = tensors(step.value)
            step.function = self._function(step)
        operands = [self._value(operand, values) for operand in step.operands]
        with np.errstate(all="ignore"):
            try:
                return step.function(*operands)
            except NotImplementedError:
                step.function = self._compile(step)
                return step.function(*operands)

    def _function(self, step: _Step) -> Function:
        make = OPERATORS.get(step.value.op.name)
        if make is not None:
            try:
                return make(step.value)
            except NotImplementedError:
                pass
        return self._compile(step)

    def _compile(self, step: _Step) -> Function:
        name = str(step.var.name)
        try:
            function = compile_call(step.value, self._module)
        except Exception as err:  # TVM raises errors of all kinds
            reason = (str(err).strip().splitlines() or [type(err).__name__])[-1]
            raise ModelError(
                f"layer '{name}': the simulator has no definition of '{step.value.op.name}': {reason}"
            ) from err
        self.compiled.append(name)
        return function

    def _value(self, expr: relax.Expr, values: Mapping[relax.Var, Any]) -> Any:
        if isinstance(expr, relax.Var):
            return values[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(self._value(field, values) for field in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value, values)[expr.index]
        if isinstance(expr, GenericConst):
            if expr not in self._constants:
                self._constants[expr] = expr.value.numpy()
            return self._constants[expr]
        raise ModelError(f"the simulator has no definition of '{type(expr).__name__}'")


def _variables(expr: relax.Expr) -> list[relax.Var]:
    """Variables that an expression reads."""
    if isinstance(expr, relax.Var):
        return [expr]
    if isinstance(expr, relax.Tuple):
        return [var for field in expr.fields for var in _variables(field)]
    if isinstance(expr, relax.TupleGetItem):
        return _variables(expr.tuple_value)
    if isinstance(expr, relax.Call):
        return [var for arg in expr.args for var in _variables(arg)]
    return []
