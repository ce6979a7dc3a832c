"""Geometry of windows that slide over spatial axes, as convolutions and pools have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm_ipu.frontends.onnx.context import Node, UnsupportedNode
from tvm_ipu.frontends.onnx.ops.common import attr_ints, attr_text

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes of a tensor [N, C, *spatial].

    Attributes:
        kernel: Taps along each axis.
        strides: Steps of the window.
        dilations: Steps between taps.
        begins: Padding before the first element; negative values cut.
        ends: Padding behind the last element, as declared, or as ceiling mode needs; negative values cut.
        declared_ends: Padding behind the last element as the model declares it.
        outputs: Positions of the window.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    declared_ends: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def padding(self) -> list[int]:
        """All begins, then all ends, as Relax wants them."""
        return [*self.begins, *self.ends]


def read_window(node: Node, spatial: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a convolution or pool over ``spatial``.

    Raises:
        UnsupportedNode: Attributes do not fit the rank, or the window does not fit the padded tensor.
    """
    rank = len(spatial)
    strides, dilations = attr_ints(node, "strides", [1] * rank), attr_ints(node, "dilations", [1] * rank)
    auto = attr_text(node, "auto_pad", "NOTSET", AUTO_PADS)
    pads = attr_ints(node, "pads", [0] * 2 * rank) if auto == "NOTSET" else (0,) * 2 * rank
    ceiling = bool(node.attrs.get("ceil_mode", 0))
    begins, ends, outputs = list(pads[:rank]), list(pads[rank:]), []
    declared = []
    for i, extent in enumerate(spatial):
        reach = (kernel[i] - 1) * dilations[i] + 1
        if auto.startswith("SAME"):
            count = -(-extent // strides[i])
            total = max(0, (count - 1) * strides[i] + reach - extent)
            begins[i] = total // 2 if auto == "SAME_UPPER" else total - total // 2
            ends[i] = total - begins[i]
        room = extent + begins[i] + ends[i] - reach
        declared.append(ends[i])
        if room < 0:
            raise UnsupportedNode(f"a window of {reach} does not fit {extent} elements and their padding")
        count = (-(-room // strides[i]) if ceiling else room // strides[i]) + 1
        if ceiling and (count - 1) * strides[i] >= extent + begins[i]:
            count -= 1  # a window must not start in the padding behind
        outputs.append(count)
        needed = (count - 1) * strides[i] + reach - extent - begins[i]
        ends[i] = next((e for e in (ends[i], 0) if needed <= e < needed + strides[i]), needed)
    return Window(
        tuple(int(k) for k in kernel),
        strides,
        dilations,
        tuple(begins),
        tuple(ends),
        tuple(declared),
        tuple(outputs),
    )
