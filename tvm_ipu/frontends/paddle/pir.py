"""Programs of Paddle 3 (``.json``, its intermediate representation PIR) in the form of older ones.

An operator of PIR has numbered values as operands where older ones have slots, and constants as operands
where those have attributes: ``pd_op.pool2d(x, full_int_array)`` -> ``pool2d {X: x} ksize=[...]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.files import parse_json, read_model_file
from tvm_ipu.frontends.paddle.program import Op, Program, Variable, read_parameters
from tvm_ipu.frontends.paddle.schema import DTYPES

_TYPES = {
    "t_bool": "bool", "t_i8": "int8", "t_ui8": "uint8", "t_i16": "int16", "t_i32": "int32",
    "t_i64": "int64", "t_f16": "float16", "t_f32": "float32", "t_f64": "float64",
}  # fmt: skip
_NUMBERS = {name: number for number, name in DTYPES.items()}

_UNARY = (
    "abs assign ceil cos erf exp floor log logical_not mish reciprocal relu relu6 round sigmoid sign silu "
    "sin softsign sqrt swish tanh rsqrt square gelu leaky_relu elu softplus cast cumsum dropout shape "
    "softmax log_softmax flatten pixel_shuffle transpose pow clip scale reshape squeeze unsqueeze expand "
    "tile argmax argmin topk mean sum max min prod"
)
_OPERANDS = {
    **dict.fromkeys(_UNARY.split(), "X"),
    "batch_norm": "X Mean Variance Scale Bias",
    "bicubic_interp": "X OutSize SizeTensor Scale",
    "bilinear_interp": "X OutSize SizeTensor Scale",
    "bmm": "X Y",
    "clip": "X @min/Min @max/Max",
    "concat": "X @axis/AxisTensor",
    "conv2d": "Input Filter",
    "conv2d_transpose": "Input Filter @output_size/OutputSize",
    "conv3d": "Input Filter",
    "cumsum": "X @axis/Axis",
    "depthwise_conv2d": "Input Filter",
    "depthwise_conv2d_transpose": "Input Filter @output_size/OutputSize",
    "dropout": "X Seed",
    "embedding": "Ids W",
    "expand": "X @shape/Shape",
    "gather": "X Index @axis/Axis",
    "gather_nd": "X Index",
    "group_norm": "X Scale Bias",
    "instance_norm": "X Scale Bias",
    "layer_norm": "X Scale Bias",
    "nearest_interp": "X OutSize SizeTensor Scale",
    "pad3d": "X @paddings/Paddings",
    "pool2d": "X @ksize/KernelSize",
    "prelu": "X Alpha",
    "reshape": "X @shape/Shape",
    "scale": "X @scale/ScaleTensor",
    "shape": "Input",
    "shape64": "Input",
    "slice": "Input @starts/StartsTensor @ends/EndsTensor",
    "split": "X @sections/SectionsTensorList @axis/AxisTensor",
    "split_with_num": "X @axis/AxisTensor",
    "squeeze": "X @axes/AxesTensor",
    "stack": "X",
    "strided_slice": "Input @starts/StartsTensor @ends/EndsTensor @strides/StridesTensor",
    "tile": "X @repeat_times/RepeatTimes",
    "topk": "X @k/K",
    "unsqueeze": "X @axes/AxesTensor",
    "where": "Condition X Y",
    **dict.fromkeys(("argmax", "argmin"), "X @axis/Axis"),
    **dict.fromkeys(("max", "min", "mean", "prod", "sum"), "X @dim/Axis"),
}
"""Slots of operands in their order; ``@attribute/Slot`` is an attribute where the operand is constant."""

_OLD_NAMES = {
    "add": "elementwise_add", "argmax": "arg_max", "argmin": "arg_min", "assign_value": "assign_value",
    "bicubic_interp": "bicubic_interp_v2", "bilinear_interp": "bilinear_interp_v2",
    "divide": "elementwise_div", "elementwise_pow": "elementwise_pow", "embedding": "lookup_table_v2",
    "expand": "expand_v2", "flatten": "flatten_contiguous_range", "floor_divide": "elementwise_floordiv",
    "full": "fill_constant", "full_int_array": "assign_value", "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_swish", "matmul": "matmul_v2", "max": "reduce_max", "maximum": "elementwise_max",
    "mean": "reduce_mean", "min": "reduce_min", "minimum": "elementwise_min", "multiply": "elementwise_mul",
    "nearest_interp": "nearest_interp_v2", "prod": "reduce_prod", "remainder": "elementwise_mod",
    "reshape": "reshape2", "shape64": "shape", "split_with_num": "split", "squeeze": "squeeze2",
    "subtract": "elementwise_sub", "sum": "reduce_sum", "topk": "top_k_v2", "transpose": "transpose2",
    "unsqueeze": "unsqueeze2",
}  # fmt: skip
"""Operators that older programs call otherwise."""

_OLD_ATTRIBUTES = {
    "cast": {"dtype": "out_dtype"},
    "leaky_relu": {"negative_slope": "alpha"},
    "matmul": {"transpose_x": "trans_x", "transpose_y": "trans_y"},
    "pad3d": {"pad_value": "value"},
    "pow": {"y": "factor"},
    "transpose": {"perm": "axis"},
    **{name: {"keepdim": "keep_dim"} for name in ("max", "min", "mean", "prod", "sum")},
}
_LISTS = frozenset(
    {
        "axes",
        "dim",
        "ksize",
        "shape",
        "sections",
        "starts",
        "ends",
        "strides",
        "paddings",
        "output_size",
        "repeat_times",
    }
)


def read_json(path: Path, weights: Path) -> Program:
    """Read a ``.json`` program and its ``.pdiparams``.

    Raises:
        ModelError: One is missing or damaged, or they do not go together.
    """
    try:
        content = parse_json(read_model_file(path, "program"))
        if content["base_code"]["magic"] != "pir":
            raise KeyError("magic")
        reader = _Reader(content["program"]["regions"][0]["blocks"][0]["ops"])
        learned = {name: reader.variables[name] for name in sorted(reader.learned)}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as err:
        raise ModelError(f"'{path}' is not a Paddle program, or it is truncated") from err
    if not reader.outputs:
        raise ModelError(f"'{path}' fetches nothing: it is no program for inference")
    parameters = read_parameters(weights, learned)
    return Program(
        tuple(reader.inputs), tuple(reader.outputs), tuple(reader.ops), reader.variables, parameters
    )


class _Reader:
    """Goes through the operators once.

    Attributes:
        inputs: Names of the tensors that are fed.
        outputs: Names of the tensors that are fetched.
        learned: Names of the parameters.
        ops: The operators in the old form.
        variables: All tensors.
    """

    def __init__(self, ops: list[Any]) -> None:
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.learned: list[str] = []
        self.ops: list[Op] = []
        self.variables: dict[str, Variable] = {}
        self._names: dict[int, tuple[str, ...]] = {0: ()}
        self._constants: dict[str, Any] = {}
        for op in ops:
            self._read(op)

    def _read(self, op: Mapping[str, Any]) -> None:
        kind = op["#"].rpartition(".")[2]
        kind = kind[:-1] if kind.endswith("_") else kind
        made = op["O"] if isinstance(op["O"], list) else [op["O"]]
        operands = [self._names[one["%"]] for one in op.get("I", [])]
        if kind in ("p", "parameter"):
            self.learned.append(self._declare(made[0], op["A"][3])[0])
            return
        attributes = {one["N"]: _value(one["AT"]) for one in op.get("A", [])}
        if kind == "data":
            self.inputs += self._declare(made[0], attributes["name"])
        elif kind == "fetch":
            self.outputs += operands[0]
        elif kind == "combine":
            self._names[made[0]["%"]] = tuple(name for names in operands for name in names)
        elif op["#"].startswith("0.") and kind in ("split", "slice"):  # of a list
            chosen = operands[0] if kind == "split" else (operands[0][attributes["index"]],)
            self._names.update((one["%"], (name,)) for one, name in zip(made, chosen, strict=True))
        else:
            self._operator(kind, operands, made, attributes)

    def _operator(self, kind: str, operands: list[Any], made: list[Any], attributes: dict[str, Any]) -> None:
        scope = str(attributes.pop("struct_name", "")).strip("/")
        label = f"{scope}/{kind}_{made[0]['%']}" if scope else f"{kind}_{made[0]['%']}"
        names = [
            name for i, one in enumerate(made) for name in self._declare(one, f"{label}.{i}" if i else label)
        ]
        renamed = {_OLD_ATTRIBUTES.get(kind, {}).get(key, key): value for key, value in attributes.items()}
        for key in ("dtype", "out_dtype"):
            renamed |= {key: _NUMBERS[renamed[key]]} if renamed.get(key) in _NUMBERS else {}
        inputs: dict[str, tuple[str, ...]] = {}
        for spec, values in zip(_OPERANDS.get(kind, "X Y").split(), operands, strict=False):
            attribute, _, slot = spec.rpartition("/")
            attribute = attribute.removeprefix("@")
            if attribute and len(values) == 1 and values[0] in self._constants:
                renamed[attribute] = _as_attribute(attribute, self._constants[values[0]])
            else:
                inputs[slot] = values
        if renamed.get("dim") == []:
            renamed["reduce_all"] = True
        if kind in ("full", "full_int_array"):
            value = attributes["value"]
            self._constants[names[0]] = value
            size = {"shape": [len(value)], "values": value} if kind == "full_int_array" else {}
            renamed |= size
        outputs = {"Out": tuple(names)}
        if kind == "topk":
            outputs = {"Out": (names[0],), "Indices": (names[1],)}
        elif kind.endswith("_norm"):  # then statistics
            outputs = {"Out": (names[0],)}
        self.ops.append(Op(_OLD_NAMES.get(kind, kind), inputs, outputs, renamed))

    def _declare(self, made: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """Variables of a result: one, or those of a list."""
        if not isinstance(name, str):
            raise TypeError("a name that is no text")
        if "TT" not in made:
            self._names[made["%"]] = ()
            return ()
        kind = made["TT"]
        if kind["#"].endswith("t_dtensor"):
            self.variables[name] = _variable(kind)
            self._names[made["%"]] = (name,)
        elif kind["#"].endswith("t_vec"):
            parts = {f"{name}.{i}" if i else name: _variable(one) for i, one in enumerate(kind["D"])}
            self.variables |= parts
            self._names[made["%"]] = tuple(parts)
        else:
            self._names[made["%"]] = ()
        return self._names[made["%"]]


def _variable(kind: Mapping[str, Any]) -> Variable:
    dtype = _TYPES.get(kind["D"][0]["#"].rpartition(".")[2])
    return Variable(np.dtype(dtype) if dtype else None, tuple(map(int, kind["D"][1])))


def _value(message: Any) -> Any:
    """The value of an attribute."""
    value = message.get("D") if isinstance(message, dict) else message
    return [_value(one) for one in value] if isinstance(value, list) else value


def _as_attribute(name: str, value: Any) -> Any:
    if name in _LISTS:
        return value if isinstance(value, list) else [int(value)]
    value = value[0] if isinstance(value, list) else value
    return int(value) if name in ("axis", "k") else value
