"""How far a layer is from its roofline, and what holds it back."""

from __future__ import annotations

from typing import Any

Layer = dict[str, Any]
Peaks = dict[str, float]

SHORT_NS = 2000
"""A layer as short as this is as long as its call, its loops' ends and the clock's own reading."""

LOW_INTENSITY = 4
"""Operations for each byte below which a product's time is that of reading its weights."""

_PRODUCTS = ("conv", "depthwise", "dense", "gemm", "matmul", "attention")
_LOOK_UPS = ("take", "gather", "embedding")
_LAYOUT = ("transpose", "pad", "split", "concat", "strided_slice", "copy")
_CONVERSIONS = ("quantize", "round", "cast")
_FUNCTIONS = ("exp", "erf", "tanh", "sigmoid", "softmax", "gelu", "sqrt", "power", "log")
_SUMS = ("sum", "mean", "max", "min", "norm", "argmax", "pool")


def roofline_ns(layer: Layer, precision: str, threads: int, peaks: Peaks) -> float:
    """Nanoseconds that a layer needs at least: for its arithmetic or for its operands from level 3.

    Args:
        layer: A call of the profile.
        precision: What products compute in, as the benchmark names it; Winograd's are always float32.
        threads: Threads that share the work.
        peaks: Of one core, as ``scripts.peaks`` measures them.
    """
    rate = peaks["fp32"]
    if layer["template"].removeprefix("tile_").startswith(_PRODUCTS):
        rate = peaks.get(precision.partition("-")[0], rate)
    return float(max(layer["flops"] / rate, layer["bytes"] / peaks["l3"]) / threads)


def reason(layer: Layer) -> str:
    """Why a layer is far below its roofline, by what kind of layer it is; empty where nothing tells."""
    op, ns = layer["op"], max(layer["ns"], 1)
    rate = f"{layer['bytes'] / ns:.0f} GB/s"
    if ns < SHORT_NS:
        return f"{ns / 1e3:.1f} us: as long as a call takes"
    if any(name in op for name in _LOOK_UPS):
        return f"looks elements up one by one, at {rate}"
    if layer["template"].removeprefix("tile_").startswith(_PRODUCTS):
        few = layer["flops"] < LOW_INTENSITY * layer["bytes"]
        return f"few rows: reads its weights once, from memory, at {rate}" if few else ""
    if any(name in op for name in _LAYOUT):
        return f"moves elements to other places, some bytes at a time, at {rate}"
    if any(name in op for name in _FUNCTIONS):
        return f"each function counts as one operation and takes a dozen; {layer['flops'] / ns:.0f} GOP/s"
    if any(name in op for name in _CONVERSIONS):
        return f"each conversion counts as one operation and takes several; {layer['flops'] / ns:.0f} GOP/s"
    if any(name in op for name in _SUMS):
        return f"sums depend on one another; {rate}"
    return ""
