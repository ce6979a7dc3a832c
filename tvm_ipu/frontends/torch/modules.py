"""What is done with a PyTorch model before it is exported: see what it is, set its mode, run it."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.frontends.torch.calls import Call


def is_program(source: Any) -> bool:
    """Whether it is what torch.export makes."""
    return isinstance(source, torch.export.ExportedProgram)


def is_script(source: Any) -> bool:
    """Whether it is TorchScript."""
    return isinstance(source, torch.jit.ScriptModule | torch.jit.ScriptFunction)


def title(source: Any) -> str:
    """What the model is called."""
    return str(getattr(source, "original_name", "") or getattr(source, "name", "") or type(source).__name__)


def check(source: Any) -> None:
    """See that a model can be exported at all.

    Raises:
        ModelError: It is no model, or its weights have no values.
    """
    if isinstance(source, torch.jit.ScriptFunction):
        return
    if not isinstance(source, torch.nn.Module):
        raise ModelError(
            f"an object of type {type(source).__qualname__} is no PyTorch model",
            "give a Module, ScriptModule, ScriptFunction or ExportedProgram",
        )
    empty = [name for name, weight in source.named_parameters() if weight.is_meta]
    if empty:
        raise ModelError(
            f"weights of {type(source).__name__} have no values: '{empty[0]}' is on the device 'meta'",
            "load its state_dict first",
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without PyTorch's own warnings, which tell developers of models about PyTorch's future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def evaluation(source: Any) -> Iterator[None]:
    """The model in evaluation mode and without gradients; afterwards as it was."""
    modules = [] if isinstance(source, torch.jit.ScriptFunction) else list(source.modules())
    training = [getattr(module, "training", False) for module in modules]
    buffers = [] if is_script(source) else [(buffer, buffer.clone()) for buffer in source.buffers()]
    with torch.no_grad():
        try:
            if any(training):
                source.eval()
            yield
        finally:
            for module, flag in zip(modules, training, strict=True):
                if flag != getattr(module, "training", False):
                    module.training = flag
            for buffer, value in buffers:
                buffer.copy_(value)


def copy_of(source: Any) -> Any:
    """A copy of TorchScript, which keeps what it changes; any other model itself."""
    return copy.deepcopy(source) if isinstance(source, torch.jit.ScriptModule) else source


def run(source: Any, call: Call) -> Any:
    """What the model gives.

    Raises:
        OptionError: It fails with these arguments.
    """
    try:
        return copy_of(source)(*call.args, **call.kwargs)
    except Exception as err:  # whatever the model raises
        lines = [line for line in str(err).strip().splitlines() if line.strip()] or [type(err).__name__]
        reason = lines[-1] if is_script(source) else lines[0]
        inputs = ", ".join(
            f"{name}:{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
            for name, tensor in call.inputs.items()
        )
        raise OptionError(
            f"example_input: the model fails with {inputs or 'no inputs'}: {reason}",
            f"it takes {inspect.Signature(list(call.bound.signature.parameters.values()))}",
        ) from err


def output_names(outputs: Any) -> list[str]:
    """Names of the tensors in what a model gives: keys and fields; without those, ``output`` and a number.

    Args:
        outputs: Tensors, or integers that stand for them, in lists, tuples, dictionaries or classes.
    """
    names = [name or "output" for name, _ in _leaves(outputs, "")]
    return [f"output_{name}" if name[0].isdigit() else name for name in names]


def tensors(outputs: Any) -> list[Any]:
    """The tensors in what a model gives, in the order of ``output_names``."""
    return [leaf for _, leaf in _leaves(outputs, "")]


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor | int) and not isinstance(value, bool):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, _inside(name, key))
    elif isinstance(value, list | tuple):
        fields = getattr(value, "_fields", range(len(value)))
        for key, inner in zip(fields, value, strict=True):
            yield from _leaves(inner, _inside(name, key))
    else:
        parts, _ = pytree.tree_flatten(value)
        if len(parts) != 1 or parts[0] is not value:
            yield from _leaves(parts, name)


def _inside(name: str, key: Any) -> str:
    return f"{name}_{key}" if name else str(key)
