"""Operators without a definition in numpy: compiled one by one from TVM's own definitions.

Moves and integers are exact there too; floats may differ from an image's in their last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from tvm_ipu.kernels.chip_questions import answer

Array = NDArray[Any]


def compile_call(call: relax.Call, module: tvm.ir.IRModule) -> Callable[..., Any]:
    """A function of the values of the call's operands that are tensors.

    Args:
        call: Any Relax operator, or a call of one of the module's TIR functions.
        module: Where those functions are.

    Raises:
        Exception: TVM cannot compile it.
    """
    params: list[relax.Var] = []
    args: list[relax.Expr] = []
    for arg in tensors(call):
        fields = arg.fields if isinstance(arg, relax.Tuple) else [arg]
        fresh = [relax.Var(f"p{len(params) + i}", field.ty) for i, field in enumerate(fields)]
        params += fresh
        args.append(relax.Tuple(fresh) if isinstance(arg, relax.Tuple) else fresh[0])
    built = tvm.compile(_module(call, module, params, args), target="llvm")
    machine = relax.VirtualMachine(built, tvm.cpu())

    def function(*values: Any) -> Any:
        flat = [v for value in values for v in (value if isinstance(value, list | tuple) else [value])]
        found = machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(v).reshape(v.shape)) for v in flat))
        return found.numpy() if hasattr(found, "numpy") else tuple(one.numpy() for one in found)

    return function


def tensors(call: relax.Call) -> list[relax.Expr]:
    """The operands that hold values: tensors and tuples of them."""
    operands = call.args[1].fields if _is_tir(call) else call.args
    return [arg for arg in operands if _is_tensor(arg)]


def _is_tensor(arg: relax.Expr) -> bool:
    if isinstance(arg, relax.Tuple):
        return all(_is_tensor(field) for field in arg.fields)
    return isinstance(getattr(arg, "ty", None), relax.TensorType)


def _is_tir(call: relax.Call) -> bool:
    return getattr(call.op, "name", "") == "relax.call_tir"


def _module(
    call: relax.Call, module: tvm.ir.IRModule, params: list[relax.Var], args: list[relax.Expr]
) -> tvm.ir.IRModule:
    """A module that computes the call of its parameters."""
    builder = relax.BlockBuilder()
    if _is_tir(call):
        own = module[call.args[0]]
        own = own.with_body(answer(own.body, register_bits=0))
        function = builder.add_func(own, call.args[0].name_hint)
        value = relax.Call(call.op, [function, relax.Tuple(args)], call.attrs, call.ty_args)
    else:
        fresh = iter(args)
        operands = [next(fresh) if _is_tensor(arg) else arg for arg in call.args]
        value = relax.Call(call.op, operands, call.attrs)
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(value))
        builder.emit_func_output(result)
    return relax.transform.LegalizeOps()(builder.finalize())
