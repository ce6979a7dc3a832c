"""What can be wrong with a model file, and what the user is told."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.unit.frontend_kit import constant, make_model, network, node, value
from tvm_ipu.base.errors import ModelError, TvmIpuError
from tvm_ipu.frontends.loaders import LoadOptions, load_model


def relu_model(**kwargs):
    return make_model([node("Relu", "x", "y")], [value("x", [2, 3])], [value("y", [2, 3])], **kwargs)


def weighted_model(folder, name="model.onnx"):
    """``y = x + w`` with ``w`` of 4096 floats in a file of its own."""
    weights = [constant("w", range(4096), "float32")]
    model = make_model([node("Add", "x w", "y")], [value("x", [4096])], [value("y", [4096])], weights)
    path = folder / name
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def load_error(source, options=None):
    with pytest.raises(ModelError) as error:
        load_model(source, options or LoadOptions())
    return str(error.value)


def test_missing(tmp_path):
    assert "no.onnx' does not exist" in load_error(tmp_path / "no.onnx")


def test_folder(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    assert "is a folder" in load_error(tmp_path / "folder.onnx")


def test_unknown_suffix(tmp_path):
    assert "no loader for files ending in '.pdf'" in load_error(tmp_path / "model.pdf")
    assert "known are .onnx" in load_error(tmp_path / "model.pdf")


def test_unknown_object():
    assert "no loader for objects of type builtins.int" in load_error(3)


def test_empty(tmp_path):
    path = tmp_path / "empty.onnx"
    path.touch()
    assert "is empty" in load_error(path)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 an archive", b"hello, world\n" * 9, bytes(100), b"\x08\x08"]
)
def test_not_onnx(tmp_path, content):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    assert "is not an ONNX model" in load_error(path)


def test_every_truncation_is_reported(tmp_path):
    whole = relu_model().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        assert str(path) in load_error(path), f"cut at byte {length}"


def test_larger_than_protobuf_allows(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 10)
    assert "save the model with its weights as external data" in load_error(path)


def test_newer_opset():
    newest = onnx.defs.onnx_opset_version()
    message = load_error(relu_model(opset=newest + 1))
    assert f"uses opset {newest + 1}" in message
    assert f"up to {newest}" in message


def test_older_opset():
    proto = make_model([node("Add", "x x", "y")], [value("x", [2])], [value("y", [2])], opset=6)
    assert load_model(proto).source["opset"] == 7


def test_older_opset_that_cannot_be_converted():
    proto = make_model([node("Tile", "x", "y")], [value("x", [2])], [value("y", [2])], opset=5)
    assert load_error(proto) == "cannot convert model 'test' to opset 7: No Adapter From Version $5 for Tile"


def test_older_opset_with_an_undefined_tensor():
    proto = make_model([node("Add", "x ghost", "y")], [value("x", [2])], [value("y", [2])], opset=6)
    assert "cannot convert model 'test' to opset 7" in load_error(proto)


def test_newest_opset_loads():
    load_model(relu_model(opset=onnx.defs.onnx_opset_version()))


def test_external_data(tmp_path):
    model = load_model(weighted_model(tmp_path))
    assert [str(spec) for spec in model.inputs] == ["x: float32[4096]"]
    assert model.name == "model"


def test_external_data_missing(tmp_path):
    path = weighted_model(tmp_path)
    (tmp_path / "weights.bin").unlink()
    message = load_error(path)
    assert "weights.bin' is missing" in message
    assert "'w'" in message


def test_external_data_short(tmp_path):
    path = weighted_model(tmp_path)
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(4096 * 4 - 1)
    message = load_error(path)
    assert "is too short" in message
    assert "needs bytes 0 to 16384, the file has 16383" in message


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "", "a\0b", "a" * 5000])
def test_external_data_stays_in_the_folder(tmp_path, location):
    (tmp_path / "inner").mkdir()
    path = weighted_model(tmp_path / "inner")
    model = onnx.load(path, load_external_data=False)
    next(e for e in model.graph.initializer[0].external_data if e.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    assert "is not in the model's folder" in load_error(path)


def test_damaged_initializer():
    model = make_model(
        [node("Add", "x w", "y")], [value("x", [4])], [value("y", [4])], [constant("w", range(4), "float32")]
    )
    model.graph.initializer[0].raw_data = b"123"
    assert "initializer 'w'" in load_error(model)


@pytest.mark.parametrize(
    ("indices", "dims", "message"),
    [
        ([7], [4], "its indices do not fit its values and shape"),
        ([[0, 0, 0]], [2, 2], "its indices do not fit"),
        ([0], [2**40], "it would take more than 2 GB"),
        ([0], [-4], "has shape [-4]"),
    ],
)
def test_damaged_sparse_initializer(indices, dims, message):
    model = make_model([node("Add", "x w", "y")], [value("x", [4])], [value("y", None)])
    model.graph.sparse_initializer.add(
        values=constant("w", [1], "float32"), indices=constant("i", indices, "int64"), dims=dims
    )
    assert message in load_error(model)


def test_undefined_tensor():
    model = make_model([node("Add", "x ghost", "y")], [value("x", [4])], [value("y", [4])])
    assert "tensor 'ghost', input of node 'Add:y', is not computed" in load_error(model)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (node("Relu", "x x", "y"), "node 'Relu:y' (Relu) has 2 inputs, opset 17 allows 1 to 1"),
        (node("Relu", "x", "y z"), "node 'Relu:y z' (Relu) has 2 outputs, opset 17 allows 1 to 1"),
        (node("Relu", "x", "y", alpha=1), "has attribute 'alpha', which opset 17 does not know"),
        (node("Concat", "x x", "y"), "node 'Concat:y' (Concat) lacks attribute 'axis'"),
        (node("Concat", "x x", "y", axis="1"), "(Concat): attribute 'axis' is string, not int"),
    ],
)
def test_nodes_that_are_not_as_onnx_defines_them(bad, message):
    assert message in load_error(make_model([bad], [value("x", [4])], [value("y", None)]))


def test_element_types_that_onnx_does_not_know():
    model = relu_model()
    model.graph.input[0].type.tensor_type.elem_type = -2
    assert "has an element type that ONNX does not know" in load_error(model)


def test_names_that_are_not_text():
    model = relu_model().SerializeToString().replace(b"Relu:y", b"Relu\xff\xff")
    assert "is not text: the model is damaged" in load_error(onnx.ModelProto.FromString(model))


def test_shapes_that_do_not_fit():
    model = make_model([node("MatMul", "x x", "y")], [value("x", [2, 3])], [value("y", [2, 2])])
    message = load_error(model)
    assert "node 'MatMul:y' (MatMul) with inputs [2, 3], [2, 3]" in message


def test_string_input():
    model = make_model(
        [node("Identity", "x", "y")],
        [value("x", [2], TensorProto.STRING)],
        [value("y", [2], TensorProto.STRING)],
    )
    assert "input 'x' has element type string" in load_error(model)


def test_sequence_input():
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    model = make_model(
        [node("ConcatFromSequence", "x", "y", axis=0)], [helper.make_value_info("x", kind)], [value("y", [2])]
    )
    assert "input 'x' is not a tensor but a sequence" in load_error(model)


def test_initializers_listed_as_inputs_are_no_inputs():
    weights = [constant("w", range(4), "float32")]
    model = make_model(
        [node("Add", "x w", "y")], [value("x", [4]), value("w", [4])], [value("y", [4])], weights, opset=8
    )
    assert [spec.name for spec in load_model(model).inputs] == ["x"]


def test_weights_above_2_gb(tmp_path):
    """A table of 2.2 GB, mostly holes in its file; its last row is read."""
    rows, width = 550_000, 1000
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[rows, width])
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value="table.bin")
    with (tmp_path / "table.bin").open("wb") as file:
        file.truncate(rows * width * 4)
    model = make_model(
        [node("Gather", "table i", "y", axis=0)],
        [value("i", [1], TensorProto.INT64)],
        [value("y", [1, width])],
    )
    model.graph.initializer.append(table)
    path = tmp_path / "big.onnx"
    path.write_bytes(model.SerializeToString())
    assert [str(s) for s in load_model(path).outputs] == [f"y: float32[1,{width}]"]


def test_damaged_files_give_no_other_errors(tmp_path):
    """Random bytes are changed, deleted, inserted; whatever happens is a ModelError or a model."""
    whole, path = network().SerializeToString(), tmp_path / "damaged.onnx"
    random = np.random.default_rng(0)
    failures = 0
    for _ in range(300):
        damaged = bytearray(whole)
        position = random.integers(len(damaged))
        damaged[position : position + random.integers(2)] = random.bytes(random.integers(2))
        path.write_bytes(damaged)
        try:
            load_model(path, LoadOptions(batch=1))
        except TvmIpuError:
            failures += 1
    assert failures > 100
