"""What is compiled for a chip with no float unit computes with integers only, or is refused with a reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import tvm_ffi
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_static
from tvm import tirx

from tests.passes.test_to_integer import _Calibration, network
from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.target import load_target
from tvm_ipu.frontends.loaders import LoadOptions, load_model
from tvm_ipu.kernels.select import schedule
from tvm_ipu.passes.pipeline import run_phases
from tvm_ipu.passes.refuse_floats import refuse_floats

CHIP = load_target("ipu-ref@aarch64-neon")


def model(middle: list, last: str = "p", result: int = TensorProto.FLOAT):
    """A convolution on quantised numbers, and nodes between it and the quantisation of the result."""
    random = np.random.default_rng(0)
    constants = {
        "s": np.float32(0.02),
        "z": np.uint8(3),
        "w": random.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8),
        "ws": np.full(8, 0.01, np.float32),
        "wz": np.zeros(8, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=0),
        helper.make_node("Conv", ["d", "dw"], ["c"], name="conv"),
        *middle,
        helper.make_node("QuantizeLinear", [last if middle else "c", "s", "z"], ["e"]),
        helper.make_node("DequantizeLinear", ["e", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", result, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def compiled(one, target=CHIP, last: str | None = None):
    loaded = load_model(one, LoadOptions())
    return run_phases(loaded.module, target, CompileOptions(), **({"last": last} if last else {}))


def float_buffers(func: tirx.PrimFunc) -> bool:
    return any("float" in str(param.ty.dtype.dtype) for param in func.params)


def touches_floats(func: tirx.PrimFunc) -> bool:
    types: set[str] = set()
    for launch in schedule(func, CHIP)[0]:
        tvm_ffi.structural_walk(
            launch.func, (tirx.Expr, lambda node: types.add(str(getattr(node, "ty", ""))))
        )
    return any("float" in name for name in types)


def test_only_kernels_of_inputs_and_outputs_touch_floats(tmp_path):
    """Convolutions, pools, a residual sum, tables, a product and a concatenation are on integers."""
    onnx.save(network(), tmp_path / "float.onnx")
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", _Calibration(), per_channel=True)
    module = compiled(tmp_path / "int8.onnx")
    functions = [func for func in module.functions.values() if isinstance(func, tirx.PrimFunc)]
    inner = [func for func in functions if not float_buffers(func)]
    assert len(functions) - len(inner) <= 3
    assert len(inner) >= 10
    assert not any(touches_floats(func) for func in inner)
    on_cpu = compiled(tmp_path / "int8.onnx", load_target("aarch64-neon"))
    assert any(
        touches_floats(func)
        for func in on_cpu.functions.values()
        if isinstance(func, tirx.PrimFunc) and not float_buffers(func)
    )


def test_float_layer_is_refused_by_name_and_reason():
    sort = [
        helper.make_node("CumSum", ["c", "axis"], ["p"], name="running_total"),
        helper.make_node("Constant", [], ["axis"], value=numpy_helper.from_array(np.int64(1))),
    ]
    with pytest.raises(ModelError, match=r"'ipu-ref' has no float unit, .*running_total") as caught:
        compiled(model(sort[::-1]))
    assert "calibrate" in caught.value.hint
    compiled(model(sort[::-1]), load_target("aarch64-neon"))


def test_float_model_is_refused():
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["y"], name="square")],
        "float",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
    )
    one = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(ModelError, match="1 layers compute in float"):
        compiled(one)


def test_bits_that_the_chip_does_not_take():
    assert CHIP.chip is not None
    module = compiled(model([]), last="integer")
    narrow = replace(CHIP, chip=replace(CHIP.chip, convolution_bits=(16,)))
    with pytest.raises(ModelError, match=r"inputs of 8 bits: not for target 'ipu-ref' .*allowed are 16"):
        refuse_floats(module, narrow)
