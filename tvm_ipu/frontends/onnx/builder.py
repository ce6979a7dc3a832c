"""A block builder whose bindings bear the name of the model's node that they come from."""

from __future__ import annotations

from typing import Any

from tvm import relax
from tvm.ir import Call, Op


class NodeBuilder(relax.BlockBuilder):  # type: ignore[misc]
    """Names every binding ``hint``, nested calls included, where ``BlockBuilder`` would number them.

    Names need not be unique in Relax: all bindings of one node have the same.

    Attributes:
        hint: Name of the node that is being converted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hint = "model"

    def emit(self, expr: Any, name_hint: str = "") -> relax.Var:
        """Bind ``expr`` to a new variable called ``name_hint``, by default ``hint``."""
        return self._bind(self._normalize_python_tuple(expr), name_hint or self.hint, {})

    def _bind(self, expr: relax.Expr, name: str, bound: dict[int, relax.Var]) -> relax.Var:
        expr = self.normalize(self._flatten(expr, name, bound))
        var = (relax.DataflowVar if self.current_block_is_dataflow() else relax.Var)(name, expr.ty)
        self.emit_normalized(relax.VarBinding(var, expr))
        return var

    def _flatten(self, expr: relax.Expr, name: str, bound: dict[int, relax.Var]) -> relax.Expr:
        """``expr`` with its nested calls bound to variables, each once.

        ``bound`` holds those by hash: TVM's is an object's identity, which Python's wrappers of it have not.
        """

        def leaf(part: relax.Expr) -> relax.Expr:
            if isinstance(part, relax.Tuple):
                return self._flatten(part, name, bound)
            if not _is_operation(part):
                return part
            if hash(part) not in bound:
                bound[hash(part)] = self._bind(part, name, bound)
            return bound[hash(part)]

        if isinstance(expr, relax.Tuple):
            return relax.Tuple([leaf(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(leaf(expr.tuple_value), expr.index)
        if _is_operation(expr):
            return Call(expr.op, [leaf(arg) for arg in expr.args], expr.attrs, expr.ty_args, expr.span)
        return expr


def _is_operation(expr: relax.Expr) -> bool:
    """A Relax call or tuple access, as opposed to leaves and to arithmetic on dimensions."""
    if isinstance(expr, Call):
        return isinstance(expr.op, Op) and str(expr.op.name).startswith("relax.")
    return isinstance(expr, relax.TupleGetItem)
