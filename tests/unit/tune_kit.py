"""A kernel problem and records of its decisions."""

from __future__ import annotations

import tvm_ipu
from tests.unit.template_kit import TARGETS
from tvm_ipu.kernels.templates import gemm
from tvm_ipu.tune.records import Record, as_json

TARGET = TARGETS[16]
PROBLEM = gemm.Problem(49, 512, 2048, 16, "float32", "float32", "float32")


def record(decision, problem=PROBLEM, **changes):
    fields = {
        "template": "gemm",
        "problem": as_json(problem),
        "target": TARGET.name,
        "cores": TARGET.cores,
        "decision": as_json(decision),
        "gain": 0.1,
        "microseconds": {"1": [10.0, 9.0]},
        "trials": 4,
        "model": "net",
        "tool": tvm_ipu.__version__,
        "machine": "a processor",
        "date": "2026-01-01T00:00:00+00:00",
    }
    return Record(**{**fields, **changes})
