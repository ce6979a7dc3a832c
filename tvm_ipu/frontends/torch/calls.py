"""The call of a model that is exported: from example inputs, or from shapes."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tvm_ipu.base.errors import OptionError
from tvm_ipu.frontends.onnx.inputs import unknown_names
from tvm_ipu.frontends.options import LoadOptions

Shape = tuple[int, ...]

OPEN_SIZES = (2, 16)
"""Sizes of an open first dimension, and of others, where there is no example input."""


@dataclass(frozen=True)
class Call:
    """Arguments of a model.

    Attributes:
        bound: They by parameter; leaves of lists, tuples and dictionaries are tensors, which become inputs,
            or other values, which become constants.
        open_axes: Axes of inputs that shall stay open, by the input's name.
    """

    bound: inspect.BoundArguments
    open_axes: Mapping[str, Sequence[int]]

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""
        return self.bound.args

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments that can only be given by name."""
        return self.bound.kwargs

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """The tensors in order, by the parameter's name, with indices and keys of what lies within."""
        found: dict[str, torch.Tensor] = {}

        def note(name: str, leaf: Any) -> None:
            if isinstance(leaf, torch.Tensor):
                found[name] = leaf

        self.map(note)
        return found

    def with_tensors(self, tensors: Sequence[torch.Tensor]) -> inspect.BoundArguments:
        """The arguments with other tensors."""
        rest = iter(tensors)
        return self.replaced(lambda _, leaf: next(rest) if isinstance(leaf, torch.Tensor) else leaf)

    def map(self, function: Callable[[str, Any], Any]) -> dict[str, Any]:
        """The arguments by parameter, with each leaf replaced."""
        kinds = self.bound.signature.parameters
        return {
            name: {key: _map(inner, key, function) for key, inner in value.items()}
            if kinds[name].kind is inspect.Parameter.VAR_KEYWORD
            else _map(value, name, function)
            for name, value in self.bound.arguments.items()
        }

    def replaced(self, function: Callable[[str, Any], Any]) -> inspect.BoundArguments:
        """The arguments with each leaf replaced."""
        return inspect.BoundArguments(self.bound.signature, OrderedDict(self.map(function)))


def make_call(source: Any, options: LoadOptions, open_batch: bool = False) -> Call:
    """What to call a model with.

    Args:
        source: Module, ScriptModule or ScriptFunction.
        options: An example input: a tensor, array or number, a list or tuple of arguments, or a dictionary of
            arguments by name. Shapes, which an example is repeated or cut to; without one they are filled
            with random numbers.
        open_batch: Whether the dimensions that a batch sets stay open.

    Raises:
        OptionError: There are neither examples nor shapes, or they do not fit the model's parameters.
    """
    signature, device = signature_of(source), _device(source)
    if options.example_input is not None:
        call = Call(_bind(signature, _tensors(options.example_input, device)), {})
    else:
        call = _random_call(source, signature, options, device)
    shapes = _by_name(options.input_shapes, list(call.inputs))
    if options.batch is None:
        return _reshaped(call, shapes)
    call = _reshaped(call, _with_batch(call, shapes, options.batch))
    return _reshaped(call, _with_batch(call, shapes, -1)) if open_batch else call


def signature_of(source: Any) -> inspect.Signature:
    """The parameters of a model."""
    if isinstance(source, torch.jit.ScriptFunction):
        return _signature_of_schema(source.schema.arguments)
    if isinstance(source, torch.jit.ScriptModule):
        return _signature_of_schema(source.forward.schema.arguments[1:])
    return inspect.signature(source.forward)


def _signature_of_schema(arguments: Sequence[Any]) -> inspect.Signature:
    return inspect.Signature(
        [
            inspect.Parameter(
                argument.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=argument.default_value if argument.has_default_value() else inspect.Parameter.empty,
            )
            for argument in arguments
        ]
    )


def _device(source: Any) -> torch.device:
    """Where the model's weights are."""
    weights = [] if isinstance(source, torch.jit.ScriptFunction) else source.parameters()
    return next((weight.device for weight in weights), torch.device("cpu"))


def _tensors(example: Any, device: torch.device) -> Any:
    """An example input with tensors for arrays; a number alone is one of rank 0."""
    if isinstance(example, bool | int | float):
        return torch.tensor(example, device=device)
    return _map(example, "", lambda _, leaf: _tensor(leaf, device))


def _tensor(leaf: Any, device: torch.device) -> Any:
    if isinstance(leaf, torch.Tensor):
        return leaf.detach().to(device)
    if type(leaf).__module__.split(".")[0] == "openvino":
        leaf = leaf.data
    if isinstance(leaf, np.ndarray | np.generic):
        return torch.from_numpy(np.array(leaf)).to(device)
    return leaf


def _bind(signature: inspect.Signature, example: Any) -> inspect.BoundArguments:
    """The arguments that an example stands for."""
    parameters = signature.parameters
    single = len([p for p in parameters.values() if p.default is inspect.Parameter.empty]) == 1
    try:
        if isinstance(example, Mapping):
            if single and not set(example) & set(parameters) and not _takes_any_name(signature):
                return signature.bind(example)
            unknown = [name for name in example if name not in parameters]
            if unknown and not _takes_any_name(signature):
                message = unknown_names("example_input: there is no input", unknown, list(parameters))
                raise OptionError(message)
            return signature.bind(**example)
        if isinstance(example, list | tuple):
            if len(parameters) == 1 and len(example) != 1 and not _takes_any_number(signature):
                return signature.bind(example)
            return signature.bind(*example)
        return signature.bind(example)
    except TypeError as err:
        raise OptionError(f"example_input: {err}", f"the model takes {_listed(signature)}") from err


def _takes_any_name(signature: inspect.Signature) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())


def _takes_any_number(signature: inspect.Signature) -> bool:
    return any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in signature.parameters.values())


def _listed(signature: inspect.Signature) -> str:
    return ", ".join(str(parameter) for parameter in signature.parameters.values()) or "no arguments"


def _random_call(
    source: Any, signature: inspect.Signature, options: LoadOptions, device: torch.device
) -> Call:
    shapes = options.input_shapes
    if not shapes:
        required = [p.name for p in signature.parameters.values() if p.default is inspect.Parameter.empty]
        raise OptionError(
            f"the model needs an example_input, or shapes of its inputs {', '.join(required)}",
            "give convert_model(model, example_input=...), or --input-shapes on the command line",
        )
    generator = torch.Generator().manual_seed(0)
    known = list(signature.parameters)
    named = dict(shapes) if isinstance(shapes, Mapping) else dict(zip(known, shapes, strict=False))
    unknown = [name for name in named if name not in known]
    if unknown and not _takes_any_name(signature):
        raise OptionError(unknown_names("--input-shapes: there is no input", unknown, known))
    if len(named) < len(shapes):
        raise OptionError(
            f"--input-shapes: {len(shapes)} shapes are given, the model takes {_listed(signature)}"
        )
    types = options.input_types
    given = dict(types) if isinstance(types, Mapping) else dict(zip(named, types, strict=False))
    dtypes = {name: _dtype(source, given.get(name)) for name in named}
    values = {
        name: _random(tuple(shape), dtypes[name], generator).to(device) for name, shape in named.items()
    }
    try:
        return Call(signature.bind(**values), {})
    except TypeError as err:
        raise OptionError(f"--input-shapes: {err}", f"the model takes {_listed(signature)}") from err


def _dtype(source: Any, given: str | None) -> torch.dtype:
    """The type that is given for an input, else that of the weights."""
    if given is not None:
        dtype: torch.dtype = getattr(torch, given)
        return dtype
    weights = [] if isinstance(source, torch.jit.ScriptFunction) else source.parameters()
    return next((w.dtype for w in weights if w.dtype.is_floating_point), torch.float32)


def _random(shape: Shape, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    sizes = [OPEN_SIZES[axis > 0] if dim < 0 else dim for axis, dim in enumerate(shape)]
    if dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(dtype)
    return torch.randint(0, 2, sizes, generator=generator).to(dtype)


def _by_name(shapes: Any, names: list[str]) -> dict[str, Shape]:
    if not isinstance(shapes, Mapping):
        if len(shapes) > len(names):
            raise OptionError(
                f"--input-shapes: {len(shapes)} shapes are given, the example has {len(names)} inputs",
                f"they are {', '.join(names)}",
            )
        return {name: tuple(shape) for name, shape in zip(names, shapes, strict=False)}
    unknown = [name for name in shapes if name not in names]
    if unknown:
        raise OptionError(unknown_names("--input-shapes: there is no input", unknown, names))
    return {name: tuple(shape) for name, shape in shapes.items()}


def _with_batch(call: Call, shapes: dict[str, Shape], batch: int) -> dict[str, Shape]:
    """The shapes with ``batch`` as first dimension where that is open; everywhere where it is so nowhere."""
    own = {name: tuple(tensor.shape) for name, tensor in call.inputs.items()}
    full = {name: shape for name, shape in (own | shapes).items() if shape}
    chosen = [name for name, shape in full.items() if shape[0] < 0] or list(full)
    return shapes | {name: (batch, *full[name][1:]) for name in chosen}


def _reshaped(call: Call, shapes: Mapping[str, Shape]) -> Call:
    """The call with each tensor repeated or cut to its shape."""

    def change(name: str, leaf: Any) -> Any:
        if name not in shapes or not isinstance(leaf, torch.Tensor):
            return leaf
        shape = shapes[name]
        if len(shape) != leaf.dim():
            raise OptionError(
                f"--input-shapes: input '{name}' has {leaf.dim()} dimensions, {len(shape)} are given",
                f"the example is {name}:{list(leaf.shape)}",
            )
        for axis, (old, new) in enumerate(zip(leaf.shape, shape, strict=True)):
            size = max(old, 2) if new < 0 else new  # torch.export takes a size of 1 for a constant
            if size != old:
                leaf = leaf.index_select(axis, torch.arange(size, device=leaf.device) % old)
        return leaf

    bound = call.replaced(change)
    open_axes = {name: [axis for axis, dim in enumerate(shape) if dim < 0] for name, shape in shapes.items()}
    return replace(call, bound=bound, open_axes={name: axes for name, axes in open_axes.items() if axes})


def _map(value: Any, name: str, function: Callable[[str, Any], Any]) -> Any:
    """Lists, tuples and dictionaries with each leaf replaced."""
    prefix = f"{name}_" if name else ""
    if isinstance(value, Mapping):
        return {key: _map(inner, f"{prefix}{key}", function) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        items = [_map(inner, f"{prefix}{i}", function) for i, inner in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    return function(name, value)
