"""Samples for calibration and simulation: files, and the arrays that preprocess scripts make of them."""

from tvm_ipu.samples.samples import Samples, open_samples

__all__ = ["Samples", "open_samples"]
