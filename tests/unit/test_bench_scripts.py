"""The benchmarks' script: which steps are left, what a roofline is, and the report's lines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from scripts.bench_layers import reason, roofline_ns
from scripts.bench_models import Results, _steps
from scripts.bench_networks import table
from scripts.bench_report import write_report

PEAKS = {"fp32": 100.0, "bf16": 200.0, "int8": 400.0, "l2": 50.0, "l3": 10.0, "memory": 5.0}


def layer(op: str, template: str = "generic", ns: int = 100_000, **more: int) -> dict[str, Any]:
    return {
        "layer": "l",
        "op": op,
        "template": template,
        "kernel": "k",
        "flops": 0,
        "bytes": 0,
        "ns": ns,
    } | more


@pytest.mark.parametrize(
    ("one", "precision", "expected"),
    [
        (layer("dense", "gemm", flops=4000, bytes=10), "int8", 10.0),
        (layer("dense", "tile_gemm", flops=4000, bytes=10), "bf16-all", 20.0),
        (layer("conv2d", "winograd", flops=4000, bytes=10), "bf16", 40.0),  # whatever the precision, float32
        (layer("add", flops=10, bytes=4000), "int8", 400.0),
    ],
)
def test_roofline_is_arithmetic_or_traffic(one: dict[str, Any], precision: str, expected: float) -> None:
    assert roofline_ns(one, precision, 1, PEAKS) == expected
    assert roofline_ns(one, precision, 2, PEAKS) == expected / 2


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (layer("add", ns=300), "0.3 us"),
        (layer("take_add", bytes=200_000), "one by one, at 2 GB/s"),
        (layer("dense", "gemm", flops=2000, bytes=1000), "weights once"),
        (layer("cast_transpose_pad"), "other places"),
        (layer("exp_divide"), "a dozen"),
        (layer("conv2d", "conv2d", flops=9000, bytes=1000), ""),
    ],
)
def test_reason_is_told_by_the_kind_of_layer(one: dict[str, Any], said: str) -> None:
    found = reason(one)
    assert said in found
    assert bool(said) == bool(found)


def test_steps_that_are_done_are_left_out(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.json")
    args = argparse.Namespace(
        models=("m",), precision=("fp32",), threads=(1, 2), target="host", folder=tmp_path,
        compile_only=False, again=False,
    )  # fmt: skip

    def names() -> list[str]:
        return [name for name, _ in _steps(results, args)]

    assert names() == ["peaks of this machine", "compile m fp32 host"]
    (tmp_path / "m-fp32-host.img").write_bytes(b"")
    results.facts |= {"peaks": PEAKS, "images": {"m fp32 host": {"sha256": "a"}}}
    assert names() == ["measure m fp32 1 host", "measure m fp32 2 host"]
    results.facts["cells"] = {"m fp32 1 host": {"image": "a"}, "m fp32 2 host": {"image": "another"}}
    results.keep()
    results = Results(tmp_path / "results.json")
    assert names() == ["measure m fp32 2 host"]


def test_report_has_a_line_with_a_reason_for_each_layer_far_below_its_roofline(tmp_path: Path) -> None:
    layers = [layer("transpose", bytes=50), layer("dense", "gemm", ns=100, flops=9000, bytes=900)]
    results = [
        {"name": name, "detail": "1.0", "median_ms": ms, "min_ms": ms, "runs": 5, "error": 0.001}
        for name, ms in (("m.img", 1.0), ("onnxruntime", 4.0))
    ]
    cell = {
        "model": "m", "precision": "fp32", "threads": 1, "target": "host", "results": results,
        "layers": layers, "profiled": 0.99,
    }  # fmt: skip
    facts = {
        "machine": {"model": "M", "cores": 2, "l2_bytes": 1 << 20},
        "peaks": PEAKS,
        "images": {"m fp32 host": {"compile_s": 3.0, "mb": 2.0}},
        "cells": {"c": cell},
    }
    write_report(facts, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "| m | fp32 | 1 | host | 1.00 | 4.00 (onnxruntime) | 0.25 |" in text
    assert "| 99% | 3 | 2 |" in text
    slow = [line for line in text.splitlines() if "(generic)" in line or "(gemm)" in line]
    assert len(slow) == 1
    assert "other places" in slow[0]


def test_table_of_networks_takes_the_faster_of_the_others() -> None:
    medians = {"image": 2.0, "onnxruntime": 5.0, "openvino": 4.0}
    cells = {
        "net bf16 1": {"median_ms": {"image": 3.0, "openvino:bf16": 2.0}, "error": 0.004},
        "net fp32 1": {"median_ms": medians, "error": 1e-6},
        "net fp32 2": {"median_ms": medians | {"image": 1.0}, "error": 2e-6},
    }
    _, _, *rows = table(cells)
    assert rows == [
        "| net | fp32 | 2.00 | 4.00 (openvino) | 0.50 | 1.00 | 4.00 (openvino) | 0.25 | 2e-06 |",
        "| net | bf16 | 3.00 | 2.00 (openvino:bf16) | 1.50 |  |  |  | 4e-03 |",
    ]
