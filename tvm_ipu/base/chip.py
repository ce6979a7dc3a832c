"""What a chip without machine code of its own computes: numerics, bits and formats, from one TOML file.

Code for another machine computes the same bytes, so that an image can be tried where there is no such chip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tvm_ipu.base.contract import IMAGE_FORMATS, RAW_FORMATS, Contract
from tvm_ipu.base.errors import OptionError, TargetError
from tvm_ipu.base.toml_file import checked, read_toml

_ALLOWED: dict[str, tuple[object, ...]] = {
    "kind": ("ipu",),
    "numerics": ("integer-requant",),
    "convolution_bits": (8, 16),
    "weight_bits": (4, 8, 16),
    "operator_bits": (8, 16),
    "input_formats": (*IMAGE_FORMATS, *RAW_FORMATS),
    "output_formats": RAW_FORMATS,
}


@dataclass(frozen=True)
class Chip:
    """A chip of the kind ``ipu``.

    Attributes:
        name: Name of the file without ``.toml``.
        description: One line for ``tvm-ipu targets``.
        convolution_bits: Bits that the inputs of convolutions and matrix products may have.
        operator_bits: Bits that calibration gives to the tensors of all other operators.
        weight_bits: Bits that weights may have.
        numerics: ``integer-requant``: there is no float unit.
        input_formats: What can be fed.
        output_formats: What can be read.
        width_alignment: Rows of a picture have multiples of so many pixels, unless the model says otherwise.
        height_alignment: Pictures have multiples of so many rows, unless the model says otherwise.
        max_batch: Largest batch; 0 for any.
    """

    name: str
    description: str
    convolution_bits: tuple[int, ...]
    operator_bits: tuple[int, ...]
    weight_bits: tuple[int, ...] = (8,)
    numerics: str = "integer-requant"
    input_formats: frozenset[str] = frozenset((*IMAGE_FORMATS, *RAW_FORMATS))
    output_formats: frozenset[str] = frozenset(RAW_FORMATS)
    width_alignment: int = 1
    height_alignment: int = 1
    max_batch: int = 0
    kind: str = "ipu"

    def check(self, contract: Contract) -> None:
        """See that the chip takes a model's inputs and gives its outputs.

        Raises:
            TargetError: It does not; the message names the tensor, the format and the legal ones.
        """
        used = [
            *(("input", port.name, port.input_format, self.input_formats) for port in contract.inputs),
            *(("output", port.name, port.format, self.output_formats) for port in contract.outputs),
        ]
        for role, name, given, allowed in used:
            if given not in allowed:
                raise TargetError(
                    f"{role}_formats: '{given}' of {role} '{name}' is not known to target '{self.name}'",
                    f"allowed are {', '.join(sorted(allowed))}",
                )
        for port in contract.inputs:
            if not port.is_raw and not port.quantize:
                raise TargetError(
                    f"quantizations: FALSE of input '{port.name}' leaves its pixels in float, and target "
                    f"'{self.name}' has no float unit",
                    "set it to TRUE",
                )

    def check_weights(self, bits: Mapping[str, int]) -> None:
        """See that the chip takes the weights of a model.

        Args:
            bits: Of the weights, by the layer that reads them.

        Raises:
            TargetError: It does not; the message names the layers.
        """
        wrong = {layer: found for layer, found in bits.items() if found not in self.weight_bits}
        if wrong:
            layer, found = next(iter(wrong.items()))
            more = f" (and {len(wrong) - 1} more layers)" if len(wrong) > 1 else ""
            allowed = " or ".join(map(str, sorted(self.weight_bits)))
            raise TargetError(
                f"weight_bits: layer '{layer}' has weights of {found} bits{more}, target "
                f"'{self.name}' takes {allowed}",
                "calibrate the float stage for this target, in a mode and with presets for such weights",
            )

    def check_batch(self, largest: int) -> None:
        """See that the chip runs so many elements at once.

        Raises:
            OptionError: It does not.
        """
        if self.max_batch and largest > self.max_batch:
            raise OptionError(
                f"--batch: {largest} is more than target '{self.name}' runs at once",
                f"give at most {self.max_batch}",
            )


def parse_chip(path: Path) -> Chip:
    """Read a chip's file.

    Raises:
        TargetError: The file cannot be read, is not TOML or has an unknown, missing or wrongly typed key.
    """
    return Chip(name=path.stem, **checked(path, read_toml(path), Chip, _ALLOWED, {"name"}))
