"""Wide products of integers that end in floats, on emulated machines: as onnxruntime computes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvm_ipu.base.target import load_target
from tvm_ipu.driver import compile_model
from tvm_ipu.runtime.build import build_runner

INNER = 64


def model(columns: int) -> onnx.ModelProto:
    rng = np.random.default_rng(columns)
    constants = {
        "in scale": np.float32(0.02),
        "in zero": np.uint8(120),
        "weights": rng.integers(-127, 128, (INNER, columns)).astype(np.int8),
        "weight scales": rng.uniform(0.0001, 0.0002, columns).astype(np.float32),
        "bias": rng.standard_normal(columns).astype(np.float32),
        "out scale": np.float32(0.05),
        "out zero": np.uint8(100),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "in scale", "in zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "in scale", "in zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["weights", "weight scales"], ["w"], axis=1),
        helper.make_node("Gemm", ["d", "w", "bias"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "out scale", "out zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "out scale", "out zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, INNER])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, columns])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.qemu
@pytest.mark.parametrize("target", ["hexagon-v67", "aarch64-neon", "riscv64-v"])
@pytest.mark.parametrize("columns", [160, 1000])
def test_every_column_is_right(target: str, columns: int, tmp_path: Path) -> None:
    onnx.save(model(columns), tmp_path / "wide.onnx")
    compile_model(tmp_path / "wide.onnx", target, tmp_path / "wide.img")
    x = np.random.default_rng(1).standard_normal((1, INNER)).astype(np.float32)
    x.tofile(tmp_path / "x.bin")
    machine = load_target(target)
    command = [*machine.qemu, str(build_runner(machine)), str(tmp_path / "wide.img")]
    subprocess.run(
        [*command, "--inputs", str(tmp_path / "x.bin"), "--output", str(tmp_path)], check=True, timeout=120
    )
    found = np.fromfile(tmp_path / "output_0.bin", np.float32).reshape(1, columns)
    session = onnxruntime.InferenceSession(tmp_path / "wide.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(found, session.run(None, {"x": x})[0])
