"""Operator cases: one node each, compiled into an image, run by the C runtime, compared with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, ValueInfoProto, helper, numpy_helper, shape_inference

from scripts.node_suite import compile_image
from tvm_ipu.runtime.session import Session

Array = np.ndarray


@dataclass(frozen=True)
class Const:
    """An input that is a constant of the model."""

    array: Array


@dataclass(frozen=True)
class Case:
    """One node.

    Attributes:
        name: What the case is about.
        op: Operator.
        inputs: Arrays that are inputs of the model, constants, or None for missing ones.
        attrs: Attributes of the node.
        opset: Opset version.
        outputs: Number of outputs.
        domain: Domain of the operator.
        tolerance: Largest difference allowed, as a share of the largest element.
    """

    name: str
    op: str
    inputs: Sequence[Array | Const | None]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 21
    outputs: int = 1
    domain: str = ""
    tolerance: float = 1e-5

    def model(self) -> ModelProto:
        """The node as a model."""
        names = [f"x{i}" if x is not None else "" for i, x in enumerate(self.inputs)]
        results = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, results, domain=self.domain, **self.attrs)
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in zip(names, self.inputs, strict=True)
            if isinstance(x, np.ndarray)
        ]
        weights = [
            numpy_helper.from_array(x.array, n)
            for n, x in zip(names, self.inputs, strict=True)
            if isinstance(x, Const)
        ]
        outputs = [ValueInfoProto(name=n) for n in results]
        graph = helper.make_graph([node], self.name, infos, outputs, weights)
        opsets = [
            helper.make_opsetid("", self.opset),
            *(
                [helper.make_opsetid(self.domain, 3 if self.domain == "ai.onnx.ml" else 1)]
                if self.domain
                else []
            ),
        ]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        return shape_inference.infer_shapes(model)

    def feeds(self) -> dict[str, Array]:
        """The model's inputs."""
        return {f"x{i}": x for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray)}


def run_image(case: Case, target: str = "host") -> list[Array]:
    """Outputs by the image of the case, for a target that this machine is."""
    with Session(compile_image(case.model(), {}, target)) as session:
        results = session.run(case.feeds())
    return [results[f"y{i}"] for i in range(case.outputs)]


def run_onnxruntime(case: Case) -> list[Array]:
    """Outputs by onnxruntime."""
    session = onnxruntime.InferenceSession(case.model().SerializeToString())
    return session.run(None, case.feeds())


def assert_close(got: Array, expected: Array, tolerance: float) -> None:
    """Compare with an error measured by the largest element; integers and booleans must be equal."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if got.dtype.kind not in "fV":
        np.testing.assert_array_equal(got, expected)
        return
    a, b = got.astype(np.float64), expected.astype(np.float64)
    finite = np.abs(b[np.isfinite(b)])
    scale = max(1e-30, float(finite.max())) if finite.size else 1.0
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, equal_nan=True)


def check(case: Case) -> None:
    """Compare the image with onnxruntime."""
    for got, expected in zip(run_image(case), run_onnxruntime(case), strict=True):
        assert_close(got, expected, case.tolerance)


def parametrize(cases: Sequence[Case]) -> Any:
    """A test for every case, under its name."""
    return pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.op}-{c.name}") for c in cases])


def rand(*shape: int, seed: int = 0, dtype: str = "float32", low: float = -2.0, high: float = 2.0) -> Array:
    """Random numbers, evenly spread."""
    return np.random.default_rng((seed, *shape)).uniform(low, high, shape).astype(dtype)


def ints(*shape: int, low: int = -10, high: int = 10, seed: int = 0, dtype: str = "int64") -> Array:
    """Random integers, ``high`` excluded."""
    return np.random.default_rng((seed, *shape)).integers(low, high, shape).astype(dtype)


def const(values: Any, dtype: str = "int64") -> Const:
    """A constant input."""
    return Const(np.array(values, dtype=dtype))
