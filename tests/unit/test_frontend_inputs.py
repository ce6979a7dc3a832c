"""Shapes of inputs: given, taken over, missing, wrong; parts of a model."""

import numpy as np
import pytest

from tests.unit.frontend_kit import check_against_onnxruntime, constant, make_model, node, run_relax, value
from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.frontends.loaders import LoadOptions, load_model


def two_inputs(a=("N", 3, "H", "W"), b=("N", "H")):
    nodes = [node("Relu", "a", "p"), node("Sigmoid", "b", "q")]
    return make_model(nodes, [value("a", a), value("b", b)], [value("p", None), value("q", None)])


def shapes_of(model):
    return {spec.name: spec.shape for spec in model.inputs}


def test_all_missing_dimensions_are_listed_with_the_option_to_give():
    with pytest.raises(ModelError) as error:
        load_model(two_inputs())
    assert "a:[N,3,H,W], b:[N,H]" in error.value.message
    assert '--input-shapes "a:[N,3,H,W] b:[N,H]"' in error.value.hint


def test_only_the_batch_is_missing():
    with pytest.raises(ModelError, match="or --batch N"):
        load_model(two_inputs(("N", 3, 8, 8), ("N", 8)))


def test_by_name():
    model = load_model(two_inputs(), LoadOptions({"b": (2, 8), "a": (2, 3, 8, 9)}))
    assert shapes_of(model) == {"a": (2, 3, 8, 9), "b": (2, 8)}
    assert [spec.shape for spec in model.outputs] == [(2, 3, 8, 9), (2, 8)]


def test_by_position():
    model = load_model(two_inputs(), LoadOptions([(2, 3, 8, 9), (2, 8)]))
    assert shapes_of(model) == {"a": (2, 3, 8, 9), "b": (2, 8)}


def test_a_symbol_is_known_everywhere():
    model = load_model(two_inputs(), LoadOptions({"a": (2, 3, 8, 9)}))
    assert shapes_of(model)["b"] == (2, 8)


def test_a_given_shape_replaces_the_file_s():
    model = load_model(two_inputs((1, 3, 8, 8), (1, 8)), LoadOptions({"a": (1, 3, 16, 16)}))
    assert shapes_of(model) == {"a": (1, 3, 16, 16), "b": (1, 8)}


def test_batch():
    assert shapes_of(load_model(two_inputs(("N", 3, 8, 8), ("N", 8)), LoadOptions(batch=5))) == {
        "a": (5, 3, 8, 8),
        "b": (5, 8),
    }


def test_batch_of_a_fixed_model():
    assert shapes_of(load_model(two_inputs((1, 3, 8, 8), (1, 8)), LoadOptions(batch=5)))["a"] == (5, 3, 8, 8)


def test_batch_leaves_fixed_inputs_alone():
    assert shapes_of(load_model(two_inputs(("N", 3, 8, 8), (7, 8)), LoadOptions(batch=5)))["b"] == (7, 8)


@pytest.mark.parametrize("batch", [0, -1])
def test_batch_is_positive(batch):
    with pytest.raises(OptionError, match="--batch"):
        LoadOptions(batch=batch)


def test_unknown_name():
    with pytest.raises(OptionError) as error:
        load_model(two_inputs(), LoadOptions({"A": (1, 3, 8, 8), "c": (1,)}))
    assert "there is no input 'A', 'c'; the model has 'a', 'b'" in str(error.value)


def test_wrong_rank():
    with pytest.raises(OptionError, match="input 'a' has 4 dimensions, 2 are given"):
        load_model(two_inputs(), LoadOptions({"a": (1, 3)}))


def test_wrong_number_of_positions():
    with pytest.raises(OptionError, match="1 shapes are given, the model has 2 inputs"):
        load_model(two_inputs(), LoadOptions([(1, 3, 8, 8)]))


def test_unknown_rank():
    with pytest.raises(ModelError, match="unknown rank"):
        load_model(two_inputs(a=None), LoadOptions(batch=1))
    assert shapes_of(load_model(two_inputs(None, (1, 8)), LoadOptions({"a": (4,)})))["a"] == (4,)


def chain():
    """x -> Relu -> r -> Mul by w -> m -> Sigmoid -> y, and an input that only the last node needs."""
    nodes = [node("Relu", "x", "r"), node("Mul", "r w", "m"), node("Sum", "m z", "y")]
    weights = [constant("w", [1, 2, 3], "float32")]
    return make_model(nodes, [value("x", ["N", 3]), value("z", ["M", 3])], [value("y", ["N", 3])], weights)


def test_outputs_crop():
    model = load_model(chain(), LoadOptions({"x": (2, 3)}, outputs=("m", "r")))
    assert [spec.name for spec in model.inputs] == ["x"]
    assert [spec.name for spec in model.outputs] == ["m", "r"]
    x = np.array([[1, -1, 2], [0, 3, -3]], np.float32)
    m, r = run_relax(model, {"x": x})
    np.testing.assert_array_equal(r, np.maximum(x, 0))
    np.testing.assert_array_equal(m, np.maximum(x, 0) * [1, 2, 3])


def test_inputs_crop():
    model = load_model(chain(), LoadOptions({"m": (2, 3)}, inputs=("m", "z"), batch=2))
    assert shapes_of(model) == {"m": (2, 3), "z": (2, 3)}
    m, z = np.full((2, 3), 2, np.float32), np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(run_relax(model, {"m": m, "z": z})[0], m + z)


def test_unknown_output():
    with pytest.raises(
        OptionError, match=r"--output-arrays: there is no tensor 'mm'; the model has 'x', 'z', 'r', 'm'"
    ):
        load_model(chain(), LoadOptions(outputs=("mm",)))


def test_an_unused_input_stays():
    model = make_model([node("Relu", "x", "y")], [value("x", [2]), value("u", [3])], [value("y", [2])])
    assert shapes_of(check_against_onnxruntime(model)) == {"x": (2,), "u": (3,)}


def test_constants_take_the_place_of_inputs():
    model = make_model(
        [node("Reshape", "x s", "y")], [value("x", [2, 3]), value("s", [2], 7)], [value("y", [None, None])]
    )
    loaded = check_against_onnxruntime(model, LoadOptions(constants={"s": np.array([3, 2])}))
    assert shapes_of(loaded) == {"x": (2, 3)}
    with pytest.raises(OptionError, match="there is no input 'q'"):
        load_model(model, LoadOptions(constants={"q": 1}))
