"""Before and after of each Relax pass, and equality of what both compute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import relax

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.model import CONCAT, LAYERS_ATTR, NAMES_ATTR, SLICE
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.target import load_target
from tvm_ipu.frontends.onnx.builder import NodeBuilder
from tvm_ipu.passes.fold_constants import fold_constants
from tvm_ipu.passes.fold_division import fold_division
from tvm_ipu.passes.fold_scale import fold_scale
from tvm_ipu.passes.fuse_operators import fuse_operators
from tvm_ipu.passes.lower_operators import lower_operators
from tvm_ipu.passes.mark_parts import mark_parts
from tvm_ipu.passes.pipeline import load_user_pass, run_phases
from tvm_ipu.passes.rewrite import bindings, op_name, shape_of
from tvm_ipu.passes.simplify_transposes import simplify_transposes
from tvm_ipu.passes.sink_transposes import sink_transposes
from tvm_ipu.passes.to_mixed_precision import to_mixed_precision
from tvm_ipu.passes.to_nhwc import to_nhwc

Body = Callable[..., relax.Expr]


def constant(*shape: int, seed: int = 0) -> relax.Expr:
    return relax.const(np.random.default_rng(seed).standard_normal(shape).astype("float32"))


def build(body: Callable[[relax.BlockBuilder, relax.Var], relax.Expr], *shape: int) -> tvm.ir.IRModule:
    """A module whose ``main`` returns a tuple of what ``body`` makes from one float32 input."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.Tuple([body(builder, x)]))
        builder.emit_func_output(result)
    return builder.get()


def operators(module: tvm.ir.IRModule) -> list[str]:
    """Operators of ``main``, in order, without the prefix."""
    return [op_name(b.value).removeprefix("relax.") for b in bindings(module["main"]) if op_name(b.value)]


def run(module: tvm.ir.IRModule, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What TVM's virtual machine computes, independent of our code generation."""
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    result: NDArray[np.float32] = machine["main"](tvm.runtime.tensor(x))[0].numpy()
    return result


def image_like(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal(shape).astype("float32")


def conv_bn(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
    conv = builder.emit(relax.op.nn.conv2d(x, constant(8, 3, 3, 3), padding=1), "conv1")
    biased = builder.emit(relax.op.add(conv, constant(1, 8, 1, 1, seed=1)), "bias1")
    scaled = builder.emit(relax.op.multiply(biased, constant(1, 8, 1, 1, seed=2)), "bn1")
    shifted = builder.emit(relax.op.add(scaled, constant(1, 8, 1, 1, seed=3)), "bn1_shift")
    return builder.emit(relax.op.nn.relu(shifted), "relu1")


def test_fold_division_multiplies_by_the_reciprocal_where_that_is_a_normal_number() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        for divisor in ([8.0, 3.0], [0.0, 1.0], [np.inf, 1.0], [1e38, 1.0]):
            x = builder.emit(relax.op.divide(x, relax.const(np.float32(divisor))))
        return x

    before = build(body, 3, 2)
    after = fold_division(before)
    assert operators(after) == ["multiply", "divide", "divide", "divide"]
    first = bindings(after["main"])[0].value
    np.testing.assert_array_equal(first.args[1].value.numpy(), np.float32([0.125, 1 / 3]))


def test_fold_scale_leaves_one_convolution_and_one_bias() -> None:
    before = build(conv_bn, 1, 3, 6, 6)
    after = fold_scale(before)
    assert operators(after) == ["nn.conv2d", "add", "nn.relu"]
    x = image_like(1, 3, 6, 6)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-5)


def test_fold_scale_keeps_a_convolution_that_has_another_use() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        conv = builder.emit(relax.op.nn.conv2d(x, constant(8, 3, 3, 3)))
        scaled = builder.emit(relax.op.multiply(conv, constant(1, 8, 1, 1, seed=2)))
        return builder.emit(relax.op.add(scaled, conv))

    before = build(body, 1, 3, 6, 6)
    assert operators(fold_scale(before)) == operators(before)


@pytest.mark.parametrize("factor", [(1, 1, 4, 4), (8, 1, 1, 1)])
def test_fold_scale_ignores_what_is_not_per_channel(factor: tuple[int, ...]) -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        conv = builder.emit(relax.op.nn.conv2d(x, constant(1, 3, 3, 3)))
        return builder.emit(relax.op.multiply(conv, constant(*factor)))

    before = build(body, 1, 3, 6, 6)
    assert operators(fold_scale(before)) == operators(before)


def test_fold_constants() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        turned = builder.emit(relax.op.permute_dims(constant(3, 4), [1, 0]))
        shifted = builder.emit(relax.op.add(turned, relax.const(np.float32(1))))
        shaped = builder.emit(relax.op.reshape(shifted, (2, 6)))
        return builder.emit(relax.op.multiply(x, shaped))

    after = fold_constants(build(body, 2, 6))
    assert operators(after) == ["multiply"]
    expected = (constant(3, 4).value.numpy().T + 1).reshape(2, 6)
    np.testing.assert_array_equal(run(after, np.ones((2, 6), "float32")), expected)


def test_fold_constants_broadcasts_a_bias_but_no_large_tensor() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        bias = builder.emit(relax.op.broadcast_to(relax.const(np.float32(0.5)), (6,)))
        large = builder.emit(relax.op.broadcast_to(constant(6), (512, 256, 6)))
        return builder.emit(relax.op.multiply(builder.emit(relax.op.add(x, bias)), large))

    after = fold_constants(build(body, 512, 256, 6))
    assert operators(after) == ["broadcast_to", "add", "multiply"]
    value = next(b.value for b in bindings(after["main"]) if b.value.op.name == "relax.add").args[1]
    np.testing.assert_array_equal(value.value.numpy(), np.full(6, 0.5, "float32"))


def test_transposes_cancel() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        there = builder.emit(relax.op.permute_dims(x, [0, 3, 1, 2]))
        return builder.emit(relax.op.permute_dims(there, [0, 2, 3, 1]))

    assert operators(simplify_transposes(build(body, 1, 4, 5, 6))) == []


def test_transposes_merge() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        there = builder.emit(relax.op.permute_dims(x, [1, 2, 0]))
        return builder.emit(relax.op.permute_dims(there, [1, 0, 2]))

    before = build(body, 4, 5, 6)
    after = simplify_transposes(before)
    assert operators(after) == ["permute_dims"]
    x = image_like(4, 5, 6)
    np.testing.assert_array_equal(run(after, x), x.transpose(1, 2, 0).transpose(1, 0, 2))


def test_transpose_of_unit_dimensions_is_a_reshape() -> None:
    after = simplify_transposes(
        build(lambda b, x: b.emit(relax.op.permute_dims(x, [0, 3, 1, 2])), 1, 1, 1, 7)
    )
    assert operators(after) == ["reshape"]
    assert shape_of(bindings(after["main"])[0].value) == (1, 7, 1, 1)


def test_to_nhwc_leaves_two_transposes_at_the_border() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        y = conv_bn(builder, x)
        y = builder.emit(relax.op.nn.max_pool2d(y, (2, 2), strides=(2, 2)))
        return builder.emit(relax.op.nn.conv2d(y, constant(4, 8, 1, 1, seed=5)))

    before = build(body, 1, 3, 8, 8)
    after = simplify_transposes(fold_constants(to_nhwc(before)))
    assert operators(after).count("permute_dims") == 2
    assert operators(after)[0] == operators(after)[-1] == "permute_dims"
    x = image_like(1, 3, 8, 8)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-5)


def test_transposes_sink_through_what_convert_layout_does_not_know() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        y = builder.emit(relax.op.permute_dims(x, [0, 3, 1, 2]))
        shifted = builder.emit(relax.op.add(y, relax.const(np.float32(3))))
        clipped = builder.emit(relax.op.clip(shifted, 0, 6))
        y = builder.emit(relax.op.multiply(y, clipped))
        pooled = builder.emit(relax.op.mean(y, axis=[2, 3], keepdims=True))
        y = builder.emit(relax.op.multiply(y, pooled))
        y = builder.emit(relax.op.add(y, constant(1, 8, 1, 1)))
        return builder.emit(relax.op.permute_dims(y, [0, 2, 3, 1]))

    before = build(body, 1, 5, 6, 8)
    after = simplify_transposes(sink_transposes(before))
    assert "permute_dims" not in operators(after)
    x = image_like(1, 5, 6, 8)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_mixed_precision_keeps_types_at_the_border(dtype: str, tolerance: float) -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        y = conv_bn(builder, x)
        return builder.emit(relax.op.nn.softmax(y, axis=1))

    before = build(body, 1, 3, 6, 6)
    after = to_mixed_precision(before, dtype)
    calls = {op_name(b.value): b.value for b in bindings(after["main"]) if op_name(b.value)}
    assert [str(arg.ty.dtype) for arg in calls["relax.nn.conv2d"].args] == [dtype, dtype]
    assert str(calls["relax.nn.conv2d"].ty.dtype) == "float32"
    assert [str(arg.ty.dtype) for arg in calls["relax.add"].args] == ["float32", "float32"]
    assert str(calls["relax.nn.softmax"].args[0].ty.dtype) == "float32"
    assert str(after["main"].body.body.ty.fields[0].dtype) == "float32"
    x = image_like(1, 3, 6, 6) / 4  # the reference accumulates in the small type too
    assert np.abs(run(after, x) - run(before, x)).max() < tolerance


@pytest.mark.parametrize(("kept", "dtype"), [("block.0/Conv", "float32"), ("block.1/Conv", "float16")])
def test_mixed_precision_knows_layers_by_their_nodes(kept: str, dtype: str) -> None:
    before = build(lambda builder, x: conv_bn(builder, x), 1, 3, 6, 6)
    (conv,) = [b.var.name for b in bindings(before["main"]) if op_name(b.value) == "relax.nn.conv2d"]
    after = to_mixed_precision(before.with_attr(NAMES_ATTR, {conv: "block.0/Conv"}), "float16", [kept])
    (call,) = [b.value for b in bindings(after["main"]) if op_name(b.value) == "relax.nn.conv2d"]
    assert [str(arg.ty.dtype) for arg in call.args] == [dtype, dtype]


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_padding_before_a_convolution_becomes_its_own(value: float) -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        padded = builder.emit(relax.op.nn.pad(x, [0, 0, 1, 2, 0, 1, 0, 0], pad_value=value))
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
        return builder.emit(relax.op.nn.conv2d(padded, constant(5, 3, 2, 4), **layouts))

    before = build(body, 1, 6, 7, 4)
    after = lower_operators(before, load_target("x86-64-v3"))
    assert operators(after) == ["call_tir"]
    x = image_like(1, 6, 7, 4)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-5)


def test_few_channels_are_multiplied_in_whole_rows_of_the_window() -> None:
    """The padding becomes an operator of its own, and groups of the reduction run through a row."""
    weight = np.random.default_rng(0).integers(-128, 128, (5, 3, 3, 3)).astype("int8")

    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        image = builder.emit(relax.op.astype(x, "uint8"))
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI", "out_dtype": "int32"}
        return builder.emit(relax.op.nn.conv2d(image, relax.const(weight), padding=[1, 1], **layouts))

    before = build(body, 1, 6, 7, 3)
    after = lower_operators(before, load_target("x86-64-vnni"))
    assert operators(after) == ["astype", "nn.pad", "call_tir"]
    (call,) = (b.value for b in bindings(after["main"]) if op_name(b.value) == "relax.call_tir")
    assert shape_of(call.args[1][1]) == (1, 1, 3, 1, 3, 16, 4)
    x = np.abs(image_like(1, 6, 7, 3)) * 50
    np.testing.assert_array_equal(run(after, x), run(before, x))


@pytest.mark.parametrize(
    ("machine", "height", "largest", "stored"),
    [
        ("x86-64-v3", 16, 127, "int16"),
        ("x86-64-v3", 15, 127, "int8"),
        ("x86-64-v3", 16, 1, "uint8"),
        ("x86-64-vnni", 16, 127, "int8"),
    ],
)
def test_weights_are_wide_where_they_are_used_often(
    machine: str, height: int, largest: int, stored: str
) -> None:
    """16 bits from 192 pixels on, without 8-bit products, unless the weights have 4 bits."""
    weight = np.random.default_rng(0).integers(-largest, largest + 1, (5, 1, 1, 6)).astype("int8")

    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        image = builder.emit(relax.op.astype(x, "uint8"))
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI", "out_dtype": "int32"}
        return builder.emit(relax.op.nn.conv2d(image, relax.const(weight), **layouts))

    before = build(body, 1, height, 12, 6)
    after = lower_operators(before, load_target(machine))
    call = next(b.value for b in bindings(after["main"]) if op_name(b.value) == "relax.call_tir")
    assert str(call.args[1][1].ty.dtype) == stored
    x = np.abs(image_like(1, height, 12, 6)) * 50
    np.testing.assert_array_equal(run(after, x), run(before, x))


def test_layers_are_named_after_nodes() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        for i in (1, 2):  # two groups that share one function
            x = builder.emit(relax.op.nn.conv2d(x, constant(3, 3, 3, 3), padding=1), f"conv{i}")
            x = builder.emit(relax.op.nn.relu(x), f"relu{i}")
        pooled = builder.emit(relax.op.nn.max_pool2d(x, (2, 2)), "pool")
        return builder.emit(relax.op.reshape(pooled, (1, -1)), "flat")

    module = relax.transform.LegalizeOps(skip_ops=["relax.reshape"])(build(body, 1, 3, 6, 6))
    module = fuse_operators(relax.transform.AnnotateTIROpPattern()(module))
    assert list(module.attrs[LAYERS_ATTR]) == ["conv1+relu1", "conv2+relu2", "pool", "flat"]


def test_names_reach_the_kernels() -> None:
    named: list[str] = []

    def after(phase: str, result: tvm.ir.IRModule) -> None:
        if phase == "kernels":
            named.extend(result.attrs[LAYERS_ATTR])

    run_phases(build(conv_bn, 1, 3, 6, 6), load_target("x86-64-v3"), CompileOptions(), after)
    assert any("conv1" in name and "relu1" in name for name in named)


def double_everything(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """A user's pass, for the test below."""
    return module.with_attr("seen", 1)


def test_layers_have_the_names_of_nodes_whatever_relax_calls_them() -> None:
    builder = NodeBuilder()
    x = relax.Var("x", relax.TensorType((1, 3, 6, 6), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            weight = relax.const(np.ones((4, 3, 3, 3), "float32"))
            conv = builder.emit(relax.op.nn.conv2d(x, weight, padding=1), "a.0/conv")
            scaled = builder.emit(relax.op.multiply(conv, relax.const(2.0)), "norm")
            moved = builder.emit(relax.op.add(scaled, relax.const(1.0)), "norm")
            clipped = builder.emit(relax.op.clip(moved, 0, 6), "a.0/clip")
            pooled = builder.emit(relax.op.mean(clipped, [2, 3], keepdims=True), "pool1")
            result = builder.emit_output(relax.Tuple([pooled]))
        builder.emit_func_output(result)
    named: list[str] = []

    def after(phase: str, result: tvm.ir.IRModule) -> None:
        if phase == "kernels":
            named.extend(result.attrs[LAYERS_ATTR])

    run_phases(builder.finalize(), load_target("x86-64-v3"), CompileOptions(), after)
    assert [*dict.fromkeys(named)] == ["x", "a.0/conv+norm+a.0/clip", "pool1"]


def test_user_pass() -> None:
    module = load_user_pass(f"{__name__}:double_everything")(build(conv_bn, 1, 3, 6, 6))
    assert module.attrs["seen"] == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nocolon", "not of the form module:function"),
        ("no_such_module_at_all:f", "there is no module 'no_such_module_at_all'"),
        ("os:no_such_function", "has no function 'no_such_function'"),
    ],
)
def test_user_pass_errors(spec: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_user_pass(spec)


def test_concatenations_and_slices_between_layers_are_marked() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        def conv(y: relax.Expr) -> relax.Expr:
            weight = constant(8, 1, 1, shape_of(y)[3])
            layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
            return builder.emit(relax.op.nn.conv2d(y, weight, **layouts))

        halves = builder.emit(relax.op.split(conv(x), 2, axis=3))
        joined = builder.emit(relax.op.concat([halves[0], conv(halves[1])], axis=3))
        above = builder.emit(relax.op.concat([conv(joined), conv(joined)], axis=1))
        return builder.emit(relax.op.exp(above))

    module = build(body, 1, 4, 5, 8)
    marked = mark_parts(module)
    names = [
        b.value.args[0].global_symbol if op_name(b.value) == "relax.call_pure_packed" else op_name(b.value)
        for b in bindings(marked["main"])
        if isinstance(b.value, relax.Call)
    ]
    conv = "relax.nn.conv2d"
    # the last concatenation is not along the innermost dimension
    assert names == [conv, SLICE, SLICE, conv, CONCAT, conv, conv, "relax.concat", "relax.exp"]


def test_concatenations_that_fuse_are_not_marked() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        parts = [builder.emit(relax.op.exp(x)), builder.emit(relax.op.sin(x))]
        return builder.emit(relax.op.tanh(builder.emit(relax.op.concat(parts, axis=1))))

    assert "concat" in operators(mark_parts(build(body, 3, 4)))
