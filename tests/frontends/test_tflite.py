"""TensorFlow Lite models through images, compared with LiteRT."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from scripts.node_suite import compile_image
from tests.frontends import tflite_kit as kit, tflite_quantised as quantised
from tests.frontends.tflite_cases import FAMILIES
from tests.ops.integer_kit import simulate
from tests.ops.op_kit import rand
from tvm_ipu.base.errors import ModelError, OptionError, UnsupportedOperatorError
from tvm_ipu.frontends.loaders import LoadOptions, load_model
from tvm_ipu.frontends.tflite.convert import to_onnx
from tvm_ipu.runtime.session import Session

Array = np.ndarray


def run_image(model: bytes, feeds: dict[str, Array], options: LoadOptions | None = None) -> dict[str, Array]:
    """Outputs of the image of a model."""
    proto = to_onnx(model, options or LoadOptions())
    with Session(compile_image(proto, {}, "host")) as session:
        return session.run({info.name: feeds[info.name] for info in proto.graph.input})


def assert_close(name: str, got: Array, expected: Array, tolerance: float = 1e-5) -> None:
    """Compare with an error measured by the largest element; what is not float must be equal."""
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), name
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected, name)
        return
    scale = max(1e-30, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale, err_msg=name)


def _family(family: str) -> tuple[bytes, dict[str, Array]]:
    """All operators of a family side by side, and what they are given."""
    cases = FAMILIES[family]
    feeds = {name: x for case in cases for name, x in case.feeds().items()}
    model = kit.build(
        [tensor for case in cases for tensor in case.tensors()],
        [case.op() for case in cases],
        list(feeds),
        [name for case in cases for name in case.output_names()],
    )
    return model, feeds


@pytest.mark.parametrize("family", FAMILIES)
def test_operators(family):
    model, feeds = _family(family)
    expected = kit.run_litert(model, feeds)
    got = run_image(model, feeds)
    for name, want in expected.items():
        assert_close(name, got[name], want)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_quantised_operators(dtype):
    model, feeds = quantised.model_of(dtype)
    expected = kit.run_litert(model, feeds)
    got = run_image(model, feeds)
    fixed = simulate(to_onnx(model, LoadOptions()), "host", feeds)
    for name, want in expected.items():
        assert (got[name].shape, got[name].dtype) == (want.shape, want.dtype), name
        assert got[name].tobytes() == fixed[name].tobytes(), name
        steps = np.abs(got[name].astype(int) - want).max()
        assert steps <= quantised.CASES[name.rpartition("/")[0]].steps, f"{name}: {steps} steps"


def _dense(weights: kit.Tensor, **more: kit.Tensor) -> bytes:
    """x [1,8] through a dense layer whose weights may be made by DEQUANTIZE."""
    tensors = [kit.Tensor("x", shape=(1, 8)), weights, *more.values(), kit.Tensor("y", shape=(1, 5))]
    ops = [kit.Op("FULLY_CONNECTED", ["x", "real" if more else weights.name, ""], ["y"])]
    if more:
        ops.insert(0, kit.Op("DEQUANTIZE", [weights.name], ["real"]))
    return kit.build(tensors, ops, ["x"], ["y"])


def test_weights_of_16_bits_and_of_8_bits_beside_float_data():
    x, w = rand(1, 8), rand(5, 8)
    halves = kit.Tensor("w", "float16", w.shape, w.astype(np.float16))
    model = _dense(halves, real=kit.Tensor("real", shape=(5, 8)))
    assert_close("float16", run_image(model, {"x": x})["y"], kit.run_litert(model, {"x": x})["y"])
    levels = np.rint(w / 0.02).astype(np.int8)
    hybrid = kit.Tensor("w", "int8", w.shape, levels, [0.02], [0])
    got = run_image(_dense(hybrid), {"x": x})["y"]
    assert_close("exact", got, (x @ (levels * np.float32(0.02)).T))
    # LiteRT rounds the data to 8 bits, too, for each row.
    assert_close("hybrid", got, kit.run_litert(_dense(hybrid), {"x": x})["y"], 0.01)


def test_integers_keep_the_scales_of_the_file():
    case = quantised.CASES["conv"]
    x, weights, bias, y = case.typed("int8")
    model = kit.build(
        [x, weights, bias, y],
        [kit.Op(case.code, ["x", "weights", "bias"], ["y"], case.kind, case.options)],
        ["x"],
        ["y"],
    )
    proto = to_onnx(model, LoadOptions())
    values = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    found = {
        node.input[0] or node.output[0]: values[node.input[1]]
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear"
    }
    for tensor, name in ((x, "x"), (bias, "bias"), (weights, "weights/turned")):
        np.testing.assert_array_equal(found[name].ravel(), np.float32(tensor.scale))
    assert proto.graph.output[0].name == "y"


NETWORK = [
    kit.Tensor("x", shape=(1, 4, 4, 3), signature=(-1, 4, 4, 3)),
    kit.constant("w", rand(2, 3, 3, 3), "float32"),
    kit.Tensor("c", shape=(1, 4, 4, 2)),
    kit.constant("flat", [1, 32]),
    kit.Tensor("f", shape=(1, 32)),
    kit.Tensor("boxes", shape=(1, 32)),
    kit.Tensor("y", shape=(1, 32)),
]
OPS = [
    kit.Op(
        "CONV_2D",
        ["x", "w", ""],
        ["c"],
        "Conv2DOptions",
        {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1},
    ),
    kit.Op("RESHAPE", ["c", "flat"], ["f"]),
    kit.Op("My_PostProcess", ["f"], ["boxes"]),
    kit.Op("WHILE", ["boxes"], ["y"]),
]


def test_unsupported_operators_are_listed_and_can_be_cut_off():
    model = kit.build(NETWORK, OPS, ["x"], ["y"])
    with pytest.raises(UnsupportedOperatorError) as caught:
        to_onnx(model, LoadOptions())
    assert "2 operators" in caught.value.message
    assert "operator 2 'boxes' (My_PostProcess)" in caught.value.message
    assert "operator 3 'y' (WHILE)" in caught.value.message
    assert caught.value.hint == "cut the model before them: --output-arrays f"
    cut = to_onnx(model, LoadOptions(outputs=("f",)))
    assert [info.name for info in cut.graph.output] == ["f"]
    inner = to_onnx(model, LoadOptions(inputs=("c",), outputs=("f",)))
    assert [node.op_type for node in inner.graph.node] == ["Reshape"]
    with pytest.raises(OptionError, match="there is no tensor 'g'; the model has"):
        to_onnx(model, LoadOptions(outputs=("g",)))


def test_batch_and_shapes_are_the_users():
    model = kit.build(NETWORK[:5], OPS[:2], ["x"], ["f"])
    x = rand(3, 4, 4, 3)
    one_by_one = [run_image(model, {"x": x[i : i + 1]})["f"] for i in range(3)]
    got = run_image(model, {"x": x}, LoadOptions(batch=3))["f"]
    np.testing.assert_array_equal(got, np.concatenate(one_by_one))
    proto = to_onnx(model, LoadOptions(input_shapes={"x": (2, -1, 4, 3)}))
    assert [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [2, 4, 4, 3]
    with pytest.raises(ModelError, match=r"operator 1 'f' \(RESHAPE\) makes"):
        to_onnx(model, LoadOptions(input_shapes={"x": (1, 5, 4, 3)}))
    loaded = load_model(to_onnx(model, LoadOptions()), LoadOptions(batch=4))
    assert loaded.outputs[0].shape == (4, 32)


@pytest.mark.parametrize("count", [0, 7, 8, 40, 300, -1])
def test_truncated_files(count, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(kit.build(NETWORK[:5], OPS[:2], ["x"], ["f"])[:count])
    reason = r"truncated or damaged|is not a TensorFlow Lite model" if count else "is empty"
    with pytest.raises(ModelError, match=reason):
        to_onnx(path, LoadOptions())


def test_files_that_are_none(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        to_onnx(tmp_path / "none.tflite", LoadOptions())
    with pytest.raises(ModelError, match="is a folder"):
        to_onnx(tmp_path, LoadOptions())
    with pytest.raises(ModelError, match="has no signature 'other'"):
        to_onnx(kit.build(NETWORK[:5], OPS[:2], ["x"], ["f"]), LoadOptions(signature="other"))


def _mutated(model: bytes, random: np.random.Generator) -> bytes:
    """The model with a few bytes or numbers changed, or cut off."""
    found = bytearray(model)
    if random.random() < 0.1:
        return bytes(found[: random.integers(len(found))])
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(found)))
        if random.random() < 0.5:
            found[at] ^= 1 << int(random.integers(8))
        else:
            at -= at % 4
            found[at : at + 4] = int(random.choice(EXTREMES)).to_bytes(8, "little", signed=True)[:4]
    return bytes(found)


EXTREMES = [0, -1, 1, 2**31 - 1, -(2**31), 2**16]


@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_files_give_an_error_or_a_model(family):
    model = _family(family)[0]
    random = np.random.default_rng(sorted(FAMILIES).index(family))
    errors = 0
    for _ in range(120):
        try:
            to_onnx(_mutated(model, random), LoadOptions())
        except ModelError:
            errors += 1
    assert errors > 40
