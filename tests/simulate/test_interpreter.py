"""The numpy interpreter: exact products, operators left to TVM, and what it refuses.

That it gives an image's bytes is checked wherever integer layers are tested: tests/ops/integer_kit.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.ops.op_kit import assert_close, run_onnxruntime
from tests.ops.test_numbers import recurrent
from tvm_ipu.base.errors import RunError
from tvm_ipu.base.model import Model
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.frontends.loaders import load_model
from tvm_ipu.simulate.interpreter import Interpreter
from tvm_ipu.simulate.products import Weight, conv2d, matmul

Array = np.ndarray
R = relax.op


def direct_convolution(x: Array, w: Array, strides, padding, dilation, groups: int) -> Array:
    """A convolution by its definition, in Python's integers' range."""
    x = np.pad(x.astype(np.int64), ((0, 0), (0, 0), padding[::2], padding[1::2]))
    w = w.astype(np.int64)
    depth, per_group = w.shape[1], w.shape[0] // groups
    rows = (x.shape[2] - (w.shape[2] - 1) * dilation[0] - 1) // strides[0] + 1
    columns = (x.shape[3] - (w.shape[3] - 1) * dilation[1] - 1) // strides[1] + 1
    y = np.zeros((x.shape[0], w.shape[0], rows, columns), np.int64)
    for o in range(w.shape[0]):
        first = o // per_group * depth
        for i, j in np.ndindex(rows, columns):
            top, left = i * strides[0], j * strides[1]
            bottom, right = top + w.shape[2] * dilation[0], left + w.shape[3] * dilation[1]
            window = x[:, first : first + depth, top : bottom : dilation[0], left : right : dilation[1]]
            y[:, o, i, j] = (window * w[o]).sum((1, 2, 3))
    return y


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize(
    ("strides", "padding", "dilation"), [((1, 1), (0, 0, 0, 0), (1, 1)), ((2, 1), (1, 0, 2, 1), (1, 2))]
)
def test_convolutions_of_integers_are_exact(groups: int, dtype: str, strides, padding, dilation) -> None:
    random = np.random.default_rng(groups)
    info = np.iinfo(dtype)
    x = random.integers(info.min, info.max + 1, (2, 6, 7, 9)).astype(dtype)
    w = random.integers(-32767, 32768, (12, 6 // groups, 3, 2)).astype("int16")
    found = conv2d(x, Weight(w, (1, 2, 3)), strides, padding, dilation, groups, "int64")
    assert np.array_equal(found, direct_convolution(x, w, strides, padding, dilation, groups))


@pytest.mark.parametrize(
    ("terms", "value", "carrier"),
    [(100, 127, np.float32), (2000, 127, np.float64), (2000, 2**40, np.int64)],
)
def test_sums_are_carried_by_a_type_that_holds_them(terms: int, value: int, carrier: type) -> None:
    a = np.full((1, terms), 255, np.uint8)
    b = np.full((terms, 1), value, np.int64)
    weight = Weight(b, (0,))
    assert weight.carrier(a) is carrier
    assert matmul(a, weight, "int64")[0, 0] == terms * 255 * value


def test_statements_that_ask_for_the_chip() -> None:
    """Recurrent layers of several sequences ask how many sums its registers hold; there is none here."""
    case = recurrent("four at once", "LSTM", 4, direction="bidirectional", hidden=16, batch=8, states=2)
    found = Interpreter(load_model(case.model())).run(case.feeds())
    for name, expected in zip(("y0", "y1", "y2"), run_onnxruntime(case), strict=True):
        assert_close(found[name], expected, case.tolerance)


def model_of(build: Any, *specs: TensorSpec, **attributes: Any) -> Model:
    """A model of one expression of its inputs."""
    params = [relax.Var(one.name, relax.TensorType(one.shape, one.dtype.label)) for one in specs]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            value = builder.emit(build(*params))
            result = builder.emit_output(relax.Tuple([value]))
        builder.emit_func_output(result)
    ty = value.ty
    output = TensorSpec("y", tuple(int(d) for d in ty.shape), DType.parse(str(ty.dtype)))
    return Model(builder.finalize().with_attrs(attributes), specs, (output,), "model")


X = TensorSpec("x", (1, 2, 3, 4), DType.INT8)


def test_operators_without_a_definition_are_tvms_own() -> None:
    model = model_of(lambda x: R.image.resize2d(x, (6, 8), layout="NCHW", method="nearest_neighbor"), X)
    interpreter = Interpreter(model)
    x = np.arange(24, dtype=np.int8).reshape(X.shape)
    assert np.array_equal(interpreter.run({"x": x})["y"], x.repeat(2, 2).repeat(2, 3))
    assert interpreter.compiled == ["lv"]


def test_every_layer_is_shown_and_float_layers_are_listed() -> None:
    model = model_of(lambda x: R.add(x, x), X, **{"tvm_ipu.float_layers": ["a: because"]})
    interpreter = Interpreter(model)
    seen: dict[str, Array] = {}
    x = np.full(X.shape, 100, np.int8)
    interpreter.run({"x": x}, seen.__setitem__)
    assert interpreter.float_layers == ["a: because"]
    assert np.unique(next(iter(seen.values()))) == [-56]


def test_inputs_that_do_not_fit_are_refused() -> None:
    interpreter = Interpreter(model_of(lambda x: R.add(x, x), X))
    with pytest.raises(RunError, match="'x' is missing"):
        interpreter.run({})
    with pytest.raises(RunError, match="'x' is float32"):
        interpreter.run({"x": np.zeros(X.shape, np.float32)})


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda x: R.clip(x, -3, 5), lambda x: np.clip(x, -3, 5)),
        (lambda x: R.round(R.multiply(R.astype(x, "float32"), relax.const(0.5, "float32"))),
         lambda x: np.rint(x * np.float32(0.5))),
        (lambda x: R.strided_slice(x, [3, 2], [3, 0], [-9, 2], [-1, 1]), lambda x: x[:, :, :2, ::-1]),
        (lambda x: R.nn.pad(x, [0, 0, 0, 0, 1, 0, 0, 2], pad_value=7.0),
         lambda x: np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=7)),
        (lambda x: R.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], pad_mode="reflect"),
         lambda x: np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")),
        (lambda x: R.nn.max_pool2d(x, (2, 2), padding=(1, 1)),
         lambda x: np.lib.stride_tricks.sliding_window_view(
             np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-128), (2, 2), (2, 3)).max((4, 5))),
        (lambda x: R.concat([x, x], 1), lambda x: np.concatenate([x, x], 1)),
        (lambda x: R.max(x, [2, 3], keepdims=True), lambda x: x.max((2, 3), keepdims=True)),
        (lambda x: R.sum(R.astype(x, "int32"), [1]), lambda x: x.astype(np.int32).sum(1)),
        (lambda x: R.right_shift(R.astype(x, "int64"), relax.const(1, "int64")),
         lambda x: x.astype(np.int64) >> 1),
        (lambda x: R.floor_divide(R.astype(x, "int32"), relax.const(3, "int32")),
         lambda x: x.astype(np.int32) // 3),
        (lambda x: R.take(x, relax.const(np.array([3, 0], np.int64)), 3), lambda x: x[:, :, :, [3, 0]]),
        (lambda x: R.repeat(x, 2, 1), lambda x: x.repeat(2, 1)),
    ],
)  # fmt: skip
def test_operators_against_numpy(build: Any, expected: Any) -> None:
    model = model_of(build, X)
    x = np.random.default_rng(0).integers(-128, 128, X.shape).astype(np.int8)
    assert np.array_equal(Interpreter(model).run({"x": x})["y"], expected(x))


def test_calls_of_tir_functions_run() -> None:
    def build(x: relax.Expr) -> relax.Expr:
        return R.add(x, x)

    model = model_of(build, X)
    lowered = model.with_module(relax.transform.LegalizeOps()(model.module))
    assert any(isinstance(f, tvm.tirx.PrimFunc) for f in lowered.module.functions.values())
    x = np.arange(24, dtype=np.int8).reshape(X.shape)
    assert np.array_equal(Interpreter(lowered).run({"x": x})["y"], x + x)
