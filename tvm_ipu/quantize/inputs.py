"""Ranges of a model's inputs that its contract tells: pixels and raw integers need no samples."""

from __future__ import annotations

from tvm_ipu.base.contract import Contract, InputContract
from tvm_ipu.base.ranges import TensorRange

_PIXEL = 255.0


def input_ranges(contract: Contract, places: tuple[str, ...]) -> dict[str, TensorRange]:
    """Ranges of the inputs that are places, by name, as far as the contract tells them.

    A picture's range is that of all pixels after normalisation. With one mean, a whole number, and one
    divisor, the grid is that of the pixels: nothing is rounded.
    """
    found = (_range(port) for port in contract.inputs if port.name in places)
    return {one.name: one for one in found if one is not None}


def bits_of_inputs(contract: Contract) -> dict[str, int]:
    """Bits that the contract asks for: raw int16 data are the integers; some inputs stay float."""
    bits = {port.name: 32 for port in contract.inputs if not port.quantize}
    return bits | {
        port.name: 16 for port in contract.inputs if port.quantize and port.input_format == "RAWDATA_S16_NHWC"
    }


def _range(port: InputContract) -> TensorRange | None:
    if not port.quantize:
        return None
    if port.input_format == "RAWDATA_U8_NHWC":
        return TensorRange(port.name, (0.0,), (_PIXEL,))
    if port.is_raw:
        return None
    means = port.mean or (0.0,)
    divisors = tuple(one or 1.0 for one in port.std) or (1.0,)
    if len(divisors) == 1:
        divisors *= len(means)
    low = min(-mean / one for mean, one in zip(means, divisors, strict=True))
    high = max((_PIXEL - mean) / one for mean, one in zip(means, divisors, strict=True))
    return TensorRange(port.name, (low,), (high,))
