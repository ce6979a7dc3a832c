"""Rewrite the one dataflow block of ``main``, binding by binding."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import tvm
from tvm import relax

from tvm_ipu.base.model import NAMES_ATTR
from tvm_ipu.kernels.constants import constant as constant, make_constant as make_constant


class Rewriter:
    """Builds a new ``main`` from an old one; a rule sees each call with its arguments already rewritten.

    Attributes:
        builder: Where a rule emits further bindings.
        current: Old variable of the call that the rule sees.
        uses: Operators of the calls that use each variable of the old ``main``, with repetition;
            ``""`` stands for a use that is no call.
    """

    def __init__(self, module: tvm.ir.IRModule) -> None:
        self._typed = True
        main = module["main"]
        functions = {var: func for var, func in module.functions.items() if var.name_hint != "main"}
        self.builder = relax.BlockBuilder(tvm.IRModule(functions, attrs=module.attrs))
        self.current: relax.Var | None = None
        self._main = main
        self._new: dict[relax.Var, relax.Expr] = {}
        self._values: dict[relax.Var, relax.Expr] = {}
        self._origin: dict[relax.Var, relax.Var] = {}
        self._names: set[str] = set()
        self._old_nodes = node_names(module)
        self._nodes: dict[str, str] = {}
        self.uses: defaultdict[relax.Var, list[str]] = defaultdict(list)
        for binding in bindings(main):
            for var in used_vars(binding.value):
                self.uses[var].append(op_name(binding.value))
        for var in used_vars(main.body.body):
            self.uses[var].append("")

    def run(
        self,
        rule: Rule,
        outputs: Outputs | None = None,
        typed: bool = True,
        params: Sequence[relax.Var] | None = None,
    ) -> tvm.ir.IRModule:
        """The new module.

        Args:
            rule: Applied to every call in order; it returns the replacement, or None to keep the call.
            outputs: Makes the new outputs from the rewritten ones; None keeps them.
            typed: Infer a call's type before the rule sees it; False where its new arguments may not fit
                together until the rule has mended them.
            params: New parameters; the rule replaces all uses of the old ones that are not among them.
        """
        self._typed = typed
        with self.builder.function("main", list(self._main.params if params is None else params)):
            with self.builder.dataflow():
                for binding in bindings(self._main):
                    self._bind(binding, rule)
                results = self.substitute(self._main.body.body)
                if not isinstance(results, relax.Tuple):
                    raise TypeError(f"main must return a tuple, found {results.ty}")
                if outputs is not None:
                    results = relax.Tuple(outputs(self, list(results.fields)))
                result = self.builder.emit_output(results)
            self.builder.emit_func_output(result)
        module = self.builder.finalize()
        if self._nodes or self._old_nodes:
            module = module.with_attr(NAMES_ATTR, self._nodes)
        return relax.transform.DeadCodeElimination()(module)

    def _bind(self, binding: relax.VarBinding, rule: Rule) -> None:
        value = self.substitute(binding.value)
        if isinstance(value, relax.Call):
            self.current = binding.var
            is_new = not value.same_as(binding.value)
            if is_new and self._typed:
                value = self.builder.normalize(value)
            replaced = rule(self, value)
            if replaced is None and not is_new and self._keep(binding):
                return
            value = value if replaced is None else replaced
        if isinstance(value, relax.TupleGetItem) and isinstance(value.tuple_value, relax.Tuple):
            value = value.tuple_value.fields[value.index]
        if not isinstance(value, relax.Call | relax.TupleGetItem):
            self._new[binding.var] = value  # an alias, a constant or a tuple: no binding of its own
            return
        var = self._emit(value, binding.var.name)
        self._names.add(var.name)
        self._new[binding.var] = var
        self._values[var] = value
        self._origin[var] = binding.var

    def _keep(self, binding: relax.VarBinding) -> bool:
        """Emit an unchanged binding as it is; False where its name has gone to another one.

        What reads it stays unchanged too then, and its types need not be inferred again.
        """
        var = binding.var
        if not isinstance(var, relax.DataflowVar) or var.name in self._names or "." in var.name:
            return False  # the builder writes "_" for "."
        if self.builder.get_unique_name(var.name) != var.name:
            return False
        self._names.add(var.name)
        self.builder.emit_normalized(binding)
        self._note_node(var, var.name)
        self._new[var], self._values[var], self._origin[var] = var, binding.value, var
        return True

    def substitute(self, expr: relax.Expr) -> relax.Expr:
        """``expr`` with the old variables replaced by the new ones."""
        return replace_vars(expr, lambda var: self._new.get(var, var))

    @property
    def layer(self) -> str:
        """Name of the call that the rule sees."""
        return "" if self.current is None else str(self.current.name)

    def emit(self, expr: relax.Expr, name: str = "") -> relax.Var:
        """Emit a further binding, which later rules can look up."""
        var = self._emit(expr, name) if name else self.builder.emit(expr)
        self._values[var] = expr
        return var

    def _emit(self, expr: relax.Expr, name: str) -> relax.Var:
        """Bind ``expr`` to a variable that stands for the same node as the old one called ``name``."""
        var = self.builder.emit(expr, name_hint=name)
        self._note_node(var, name)
        return var

    def _note_node(self, var: relax.Var, name: str) -> None:
        """``var`` stands for the same node as the old variable called ``name``."""
        node = self._old_nodes.get(name, name)
        if var.name != node:
            self._nodes[str(var.name)] = node

    def value(self, expr: relax.Expr) -> relax.Expr:
        """What a new variable is bound to, or ``expr`` itself."""
        return self._values.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def origin(self, new: relax.Expr) -> relax.Var | None:
        """The variable of the old ``main`` that a new one stands for, where that is known."""
        return self._origin.get(new) if isinstance(new, relax.Var) else None

    def replacement(self, old: relax.Var) -> relax.Expr:
        """What stands in the new ``main`` for a variable of the old one."""
        return self._new.get(old, old)

    def attribute(self, call: relax.Expr, name: str) -> str:
        """An attribute of the function that a ``call_tir`` calls; empty for other calls and functions."""
        if op_name(call) != "relax.call_tir":
            return ""
        attributes = getattr(self.builder.get()[call.args[0]], "attrs", None) or {}
        return str(attributes[name]) if name in attributes else ""

    def users(self, expr: relax.Expr) -> list[str]:
        """Operators of the calls that use a variable in the old ``main``; empty where that is not known."""
        origin = self.origin(expr)
        return [] if origin is None else self.uses[origin]

    def single_use(self, expr: relax.Expr) -> bool:
        """True when the variable has exactly one use in the old ``main``."""
        return len(self.users(expr)) == 1


Rule = Callable[[Rewriter, relax.Call], relax.Expr | None]
Outputs = Callable[[Rewriter, list[relax.Expr]], list[relax.Expr]]


def rewrite(
    module: tvm.ir.IRModule, rule: Rule, outputs: Outputs | None = None, typed: bool = True
) -> tvm.ir.IRModule:
    """``module`` with ``rule`` applied to every call of ``main`` and dead code removed (``Rewriter.run``)."""
    return Rewriter(module).run(rule, outputs, typed)


def node_names(module: tvm.ir.IRModule) -> dict[str, str]:
    """Names of the model's nodes by those of variables, where they differ."""
    names = (module.attrs or {}).get(NAMES_ATTR, {})
    return {str(variable): str(node) for variable, node in names.items()}


def is_helper(name: str) -> bool:
    """Whether Relax gave a variable its name, and not a node of the model."""
    return re.fullmatch(r"(lv\d*)?", name) is not None


def bindings(main: relax.Function) -> list[relax.VarBinding]:
    """Bindings of a function, in order."""
    return [binding for block in main.body.blocks for binding in block.bindings]


def replace_vars(expr: relax.Expr, new: Callable[[relax.Var], relax.Expr]) -> relax.Expr:
    """``expr`` with ``new`` of its variables in their places."""
    if isinstance(expr, relax.Var):
        return new(expr)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([replace_vars(field, new) for field in expr.fields])
    if isinstance(expr, relax.TupleGetItem):
        return relax.TupleGetItem(replace_vars(expr.tuple_value, new), expr.index)
    if isinstance(expr, relax.Call):
        args = [replace_vars(arg, new) for arg in expr.args]
        if all(one.same_as(old) for one, old in zip(args, expr.args, strict=True)):
            return expr
        types = expr.ty_args if op_name(expr) in ("relax.call_tir", "relax.call_pure_packed") else None
        return relax.Call(expr.op, args, expr.attrs, types, expr.span)
    return expr


def used_vars(expr: relax.Expr) -> list[relax.Var]:
    """Variables that an expression uses, with repetition."""
    if isinstance(expr, relax.Var):
        return [expr]
    if isinstance(expr, relax.Tuple):
        return [var for field in expr.fields for var in used_vars(field)]
    if isinstance(expr, relax.TupleGetItem):
        return used_vars(expr.tuple_value)
    if isinstance(expr, relax.Call):
        return [var for arg in expr.args for var in used_vars(arg)]
    return []


def op_name(expr: relax.Expr) -> str:
    """Name of the operator that an expression calls, such as ``relax.add``; empty otherwise."""
    return getattr(expr.op, "name", "") if isinstance(expr, relax.Call) else ""


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    """Static shape of a tensor expression."""
    return tuple(int(dim) for dim in expr.ty.shape)
