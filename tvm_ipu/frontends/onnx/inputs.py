"""Static shapes for a model's inputs, from the file and from what the user gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from onnx import TypeProto, ValueInfoProto

from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.base.shapes import InputShapes
from tvm_ipu.frontends.onnx.graph import Tensor

Dim = int | str | None
"""A dimension in the file: a number, a symbol, or unknown."""


def fix_inputs(infos: Sequence[ValueInfoProto], shapes: InputShapes, batch: int | None) -> tuple[Tensor, ...]:
    """The inputs with static shapes.

    A given shape replaces the file's. A symbol in the file's shapes of the other inputs takes the value that
    the first given shape has in its place. ``batch`` becomes the first dimension of every input where that is
    not a number in the file; where it is one in all inputs, it replaces those.

    Args:
        infos: The inputs in the model's order.
        shapes: Shapes by name, or of all inputs in order.
        batch: First dimension, or None.

    Raises:
        ModelError: An input is no tensor, or dimensions are still unknown; all of them are listed.
        OptionError: ``shapes`` names no input or has another rank.
    """
    declared = {info.name: _declared(info) for info in infos}
    symbols: dict[str, int] = {}
    in_file, declared = declared, {**declared, **_given(declared, shapes, symbols)}
    if batch is not None:
        declared |= _set_batch(declared, in_file, batch, symbols)
    fixed = {n: tuple(_resolve(d, symbols) for d in dims) for n, dims in declared.items() if dims is not None}
    _require_static(infos, declared, fixed)
    return tuple(
        Tensor(
            info.name, _tensor_type(info).elem_type, tuple(d for d in fixed[info.name] if isinstance(d, int))
        )
        for info in infos
    )


def _given(
    declared: Mapping[str, tuple[Dim, ...] | None], shapes: InputShapes, symbols: dict[str, int]
) -> dict[str, tuple[Dim, ...]]:
    """The given shapes, with the file's dimensions for -1; notes the values of symbols."""
    given: dict[str, tuple[Dim, ...]] = {}
    for name, shape in _by_name(shapes, list(declared)).items():
        dims = declared[name]
        if dims is not None and len(dims) != len(shape):
            raise OptionError(
                f"--input-shapes: input '{name}' has {len(dims)} dimensions, {len(shape)} are given",
                f"the model says {name}:[{_show(dims)}]",
            )
        own = dims or (None,) * len(shape)
        given[name] = tuple(one if value == -1 else value for value, one in zip(shape, own, strict=True))
        for one, value in zip(own, shape, strict=True):
            if isinstance(one, str) and value != -1:
                symbols.setdefault(one, value)
    return given


def set_shapes(infos: Sequence[ValueInfoProto], shapes: InputShapes) -> None:
    """Write given shapes into the inputs; what is -1, or not given, stays as it is.

    Raises:
        ModelError: An input is no tensor.
        OptionError: ``shapes`` names no input or has another rank.
    """
    symbols: dict[str, int] = {}
    declared = {info.name: _declared(info) for info in infos}
    declared = {**declared, **_given(declared, shapes, symbols)}
    for info in infos:
        dims = declared[info.name]
        if dims is None:
            continue
        shape = _tensor_type(info).shape
        shape.Clear()
        for dim in (_resolve(d, symbols) for d in dims):
            shape.dim.add(dim_value=dim) if isinstance(dim, int) else shape.dim.add(dim_param=dim or "")


def declared_shape(info: ValueInfoProto) -> str:
    """The shape in the file, as text: ``[batch,3,?,?]``, or ``unknown rank``."""
    dims = _declared(info)
    return "unknown rank" if dims is None else f"[{_show(dims)}]"


def static_shape(info: ValueInfoProto) -> tuple[int, ...] | None:
    """The shape in the file where all its dimensions are numbers, else None."""
    dims = _declared(info)
    fixed = tuple(d for d in dims or () if isinstance(d, int))
    return fixed if dims is not None and len(fixed) == len(dims) else None


def unknown_names(what: str, names: Iterable[str], known: Sequence[str]) -> str:
    """Message for names that are not among the known ones, with near misses first."""
    names = list(names)
    near = [n for name in names for n in difflib.get_close_matches(name, known, 3, 0.7)]
    listed = [*dict.fromkeys(near), *(k for k in known if k not in near)]
    shown = ", ".join(f"'{k}'" for k in listed[:20]) + (" ..." if len(listed) > 20 else "")
    return f"{what} {', '.join(repr(n) for n in names)}; the model has {shown}"


def _declared(info: ValueInfoProto) -> tuple[Dim, ...] | None:
    tensor = _tensor_type(info)
    if not tensor.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else (d.dim_param.strip("?") or None)
        for d in tensor.shape.dim
    )


def _tensor_type(info: ValueInfoProto) -> TypeProto.Tensor:
    kind = info.type
    if kind.HasField("optional_type"):
        kind = kind.optional_type.elem_type
    if not kind.HasField("tensor_type"):
        found = kind.WhichOneof("value") or "unknown type"
        raise ModelError(f"input '{info.name}' is not a tensor but a {found.removesuffix('_type')}")
    return kind.tensor_type


def _by_name(shapes: InputShapes, names: list[str]) -> dict[str, Sequence[int]]:
    if isinstance(shapes, Mapping):
        unknown = [name for name in shapes if name not in names]
        if unknown:
            raise OptionError(unknown_names("--input-shapes: there is no input", unknown, names))
        return dict(shapes)
    if len(shapes) != len(names):
        raise OptionError(
            f"--input-shapes: {len(shapes)} shapes are given, the model has {len(names)} inputs",
            f"they are {', '.join(names)}",
        )
    return dict(zip(names, shapes, strict=True))


def _set_batch(
    declared: dict[str, tuple[Dim, ...] | None],
    in_file: dict[str, tuple[Dim, ...] | None],
    batch: int,
    symbols: dict[str, int],
) -> dict[str, tuple[Dim, ...]]:
    """Shapes of the inputs that ``batch`` changes."""
    first = {name: dims[0] for name, dims in in_file.items() if dims}
    symbolic = [name for name, dim in first.items() if not isinstance(dim, int)]
    symbols.update({dim: batch for dim in first.values() if isinstance(dim, str)})
    return {name: (batch, *(declared[name] or ())[1:]) for name in symbolic or first}


def _resolve(dim: Dim, symbols: Mapping[str, int]) -> Dim:
    return symbols.get(dim, dim) if isinstance(dim, str) else dim


def _require_static(
    infos: Sequence[ValueInfoProto], declared: Mapping[str, object], fixed: Mapping[str, tuple[Dim, ...]]
) -> None:
    missing = [
        info.name
        for info in infos
        if info.name not in fixed or any(not isinstance(d, int) for d in fixed[info.name])
    ]
    if not missing:
        return
    option = " ".join(f"{n}:[{_show(fixed[n], 'N') if n in fixed else 'N,...'}]" for n in missing)
    only_batch = all(n in fixed and all(isinstance(d, int) for d in fixed[n][1:]) for n in missing)
    raise ModelError(
        "inputs have dynamic dimensions: "
        + ", ".join(f"{n}:[{_show(fixed[n])}]" if n in fixed else f"{n} (unknown rank)" for n in missing),
        f'give them: --input-shapes "{option}", each name or N replaced by a number'
        + (", or --batch N" if only_batch else ""),
    )


def _show(dims: Sequence[Dim], unknown: str = "?") -> str:
    return ",".join(unknown if d is None else str(d) for d in dims)
