"""Batches of a fixed stage: the same bytes as single runs, in one buffer and in buffers of their own."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tvm_ipu import Session, compile_model
from tvm_ipu.base.contract import Contract, InputContract
from tvm_ipu.base.errors import OptionError, RunError
from tvm_ipu.cli.main import main
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph
from tvm_ipu.image.stage import FIXED, Stage, write_stage

CONTRACT = Contract((InputContract("x", "RGB", "YUV_NV12", True, (120.0, 110.0, 100.0), (64.0,), 2, 2),))


def network(outputs=1):
    """A quantised network: pictures [1, 8, 12, 3] to ``outputs`` times 10 classes."""
    rng = np.random.default_rng(0)
    constants = {
        "sx": np.float32(0.017),
        "zx": np.uint8(120),
        "sw": np.full(5, 0.01, np.float32),
        "zw": np.zeros(5, np.int8),
        "w": rng.integers(-128, 128, (5, 3, 3, 3), np.int8),
        "sd": np.float32(0.02),
        "zd": np.int8(0),
        "d": rng.integers(-128, 128, (480, 10), np.int8),
        "sy": np.float32(0.5),
        "zy": np.uint8(128),
        "flat": np.array([1, 480]),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["qx"]),
        helper.make_node("DequantizeLinear", ["qx", "sx", "zx"], ["fx"]),
        helper.make_node("Transpose", ["fx"], ["cx"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["fw"], axis=0),
        helper.make_node("Conv", ["cx", "fw"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "sx", "zx"], ["qr"]),
        helper.make_node("DequantizeLinear", ["qr", "sx", "zx"], ["fr"]),
        helper.make_node("Reshape", ["fr", "flat"], ["f"]),
        helper.make_node("DequantizeLinear", ["d", "sd", "zd"], ["fd"]),
        helper.make_node("MatMul", ["f", "fd"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "sy", "zy"], ["qy"]),
    ]
    nodes += [helper.make_node("DequantizeLinear", ["qy", "sy", "zy"], [f"y{i}"]) for i in range(outputs)]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, [1, 8, 12, 3])],
        [helper.make_tensor_value_info(f"y{i}", 1, [1, 10]) for i in range(outputs)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return graph_to_onnx(load_graph(model))


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    path = tmp_path_factory.mktemp("stage") / "net_fixed.sim"
    write_stage(Stage(FIXED, network(), CONTRACT), path)
    return path


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(1).integers(0, 256, (3, 12, 12), np.uint8)


@pytest.fixture(scope="module")
def singles(stage, frames):
    image = stage.with_name("single.img")
    compile_model(stage, "host", image)
    with Session(image) as session:
        return [session.run({"x": frame[None]})["y0"] for frame in frames]


def test_one_buffer(stage, frames, singles, tmp_path):
    image = tmp_path / "b.img"
    assert main(["compile", "-m", str(stage), "-b", "1,3", "--batch_mode", "one_buf", "-o", str(image)]) == 0
    with Session(image, plan=1) as session:
        assert session.inputs[0].shape == (3, 12, 12)
        np.testing.assert_array_equal(session.run({"x": frames})["y0"], np.concatenate(singles))
    with Session(image, plan=0) as session:
        np.testing.assert_array_equal(session.run({"x": frames[:1]})["y0"], singles[0])
    assert len({array.tobytes() for array in singles}) == 3


def test_buffers_of_their_own(stage, frames, singles, tmp_path):
    image = tmp_path / "b.img"
    assert main(["compile", str(stage), "-b", "3", "-o", str(image)]) == 0
    with Session(image) as session:
        assert session.plan_count == 1
        for count in (1, 2, 3):
            found = session.run_batch([{"x": frame[None]} for frame in frames[:count]])
            for one, expected in zip(found, singles[:count], strict=True):
                np.testing.assert_array_equal(one["y0"], expected)
        with pytest.raises(RunError, match="a batch of 4 is larger than the image's 3"):
            session.run_batch([{"x": frames[:1]}] * 4)


def test_classification_prints_the_five_best(stage, frames, singles, tmp_path, capsys):
    image, inputs = tmp_path / "c.img", tmp_path / "x.npz"
    np.savez(inputs, x=frames[:1])
    assert main(["compile", str(stage), "-c", "Classification", "-o", str(image)]) == 0
    capsys.readouterr()
    assert main(["run", str(image), "--inputs", str(inputs)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    best = (-singles[0][0]).argsort(kind="stable")[:5]
    assert [int(row[1]) for row in rows if row and row[0] == "y0"] == best.tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-b", "1,2", "--batch_mode", "n_buf"], "n_buf takes one number, the largest batch, found '1,2'"),
        (["-b", ",".join(map(str, range(1, 12))), "--batch_mode", "one_buf"], "11 sizes are too many"),
        (["-b", "2,2", "--batch_mode", "one_buf"], "'2,2' names a size twice"),
        (["-c", "Detection"], "Detection is for models with 4 outputs, found 1: y0"),
    ],
)
def test_what_does_not_go_together_is_refused(stage, words, message, tmp_path, capsys):
    assert main(["compile", str(stage), *words, "-o", str(tmp_path / "x.img")]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_is_not_known_to_the_mode():
    with pytest.raises(OptionError, match="'two_buf' is not known"):
        compile_model("net.sim", "host", "net.img", batch_mode="two_buf")
