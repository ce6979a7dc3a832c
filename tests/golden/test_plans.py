"""What becomes of a small network on each kind of x86: a change of the plan has to be seen and meant.

After a change that is meant: ``pytest tests/golden --update-golden``, and look at the difference.
"""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvm_ipu import driver
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.program import Plan
from tvm_ipu.image.reader import read_image

FOLDER = Path(__file__).parent


def network() -> bytes:
    """Convolutions of three kinds, a residual sum, pooling and a dense layer."""
    shapes = {
        "w0": (16, 3, 3, 3),
        "w1": (16, 1, 3, 3),
        "w2": (32, 16, 1, 1),
        "w3": (32, 32, 3, 3),
        "w4": (32, 10),
    }
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype("f"), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], "stem", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], "stem.act"),
        helper.make_node("Conv", ["b", "w1"], ["c"], "depthwise", pads=[1] * 4, group=16),
        helper.make_node("Conv", ["c", "w2"], ["d"], "pointwise"),
        helper.make_node("Conv", ["d", "w3"], ["e"], "square", pads=[1] * 4),
        helper.make_node("Add", ["d", "e"], ["f"], "residual"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["h"], "flat"),
        helper.make_node("MatMul", ["h", "w4"], ["y"], "dense"),
    ]
    specs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", [1, 3, 32, 32]), ("y", [1, 10]))
    ]
    graph = helper.make_graph(nodes, "net", specs[:1], specs[1:], weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def described(plan: Plan) -> str:
    """A line a kernel call: what it computes, how, its work and its units."""
    lines = [f"{c.layer}: {c.op} by {c.template}, {c.flops} FLOP, {c.extent} units" for c in plan.calls]
    return "\n".join([*lines, f"arena {plan.arena_size} of {plan.tensor_bytes} bytes", ""])


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_plan(target: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    driver.compile_model(network(), target, tmp_path / "m.img", options=CompileOptions(shipped_records=False))
    (plan,) = read_image(tmp_path / "m.img").plans
    golden = FOLDER / f"{target}.txt"
    if pytestconfig.getoption("--update-golden"):
        golden.write_text(described(plan))
    assert described(plan) == golden.read_text()
