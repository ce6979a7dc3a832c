"""Accuracy of fixed models: where they lose it, and how to win it back."""

from tvm_ipu.accuracy.measure import Models, check_image, float_runner, measure, paired, read_models
from tvm_ipu.accuracy.promote import Bound, cost, mend, promote
from tvm_ipu.accuracy.report import Report

__all__ = [
    "Bound",
    "Models",
    "Report",
    "check_image",
    "cost",
    "float_runner",
    "measure",
    "mend",
    "paired",
    "promote",
    "read_models",
]
