"""What the bytes at a fixed model's inputs and outputs mean: the content of ``input_config.ini``.

A board feeds raw bytes (a camera's frame, an array) and reads raw bytes. Colour conversion, normalisation,
layout, alignment and the types of the outputs are part of the fixed and of the offline model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.plain import from_plain

CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1, "RGBA": 4, "BGRA": 4, "YUV_NV12": 3}
"""Channels of a pixel in memory; a frame in YUV_NV12 has 3 when it is taken apart."""
IMAGE_FORMATS = tuple(CHANNELS)
RAW_FORMATS = ("RAWDATA_U8_NHWC", "RAWDATA_S16_NHWC", "RAWDATA_U16_NHWC", "RAWDATA_F32_NHWC")
LAYOUTS = ("NHWC", "NCHW")


@dataclass(frozen=True)
class InputContract:
    """One input.

    Attributes:
        name: Name of the model's input.
        training_format: What the model was trained on: RGB, BGR, GRAY or a raw format.
        input_format: What the board feeds: one of ``IMAGE_FORMATS`` or ``RAW_FORMATS``.
        quantize: Whether the input is quantised.
        mean: Mean of each channel in pixel values, in the order R, G, B; one for GRAY; empty for raw data.
        std: What the pixels less the mean are divided by, one for all channels or one each, in that order;
            empty for raw data.
        width_alignment: Rows that the board feeds are padded to a multiple of so many pixels.
        height_alignment: Frames that the board feeds are padded to a multiple of so many rows.
        layout: ``NHWC`` or ``NCHW``: of the arrays that the float model and the preprocess script use.
    """

    name: str
    training_format: str
    input_format: str
    quantize: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    width_alignment: int = 1
    height_alignment: int = 1
    layout: str = "NHWC"

    @property
    def channels(self) -> int:
        """Channels of a picture as the model was trained on."""
        return 1 if self.training_format == "GRAY" else 3

    @property
    def is_raw(self) -> bool:
        """Whether the input is data and no picture."""
        return self.input_format in RAW_FORMATS

    @property
    def is_planar(self) -> bool:
        """Whether pictures are [N, C, H, W] and not [N, H, W, C]."""
        return self.layout == "NCHW"

    def extents(self, picture: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of a picture of that shape."""
        height, width = picture[2:4] if self.is_planar else picture[1:3]
        return height, width

    def padded(self, picture: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of the frame that a picture of that shape lies in."""
        height, width = self.extents(picture)
        rows, columns = self.height_alignment, self.width_alignment
        return -(-height // rows) * rows, -(-width // columns) * columns

    def frame_shape(self, picture: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the uint8 array that is fed for such pictures: [N, rows * 3/2, columns] for YUV_NV12.

        Raises:
            ModelError: A frame in YUV_NV12 has an odd number of rows or columns.
        """
        n, (rows, columns) = picture[0], self.padded(picture)
        if self.input_format == "YUV_NV12":
            if rows % 2 or columns % 2:
                raise ModelError(
                    f"input '{self.name}': YUV_NV12 needs an even number of rows and columns, "
                    f"found {rows} x {columns}",
                    "set input_width_alignment and input_height_alignment to 2 or a multiple",
                )
            return n, rows * 3 // 2, columns
        return self._picture(n, rows, columns, CHANNELS[self.input_format])

    def picture_shape(self, frame: tuple[int, ...], size: tuple[int, int] | None = None) -> tuple[int, ...]:
        """Shape of a picture of the trained format in a frame of ``frame_shape``.

        Args:
            frame: Shape of the frame.
            size: Height and width of the picture; those of the frame with its padding by default.
        """
        if size is not None:
            rows, columns = size
        elif self.input_format == "YUV_NV12":
            rows, columns = frame[1] * 2 // 3, frame[2]
        else:
            rows, columns = self.extents(frame)
        return self._picture(frame[0], rows, columns, self.channels)

    def _picture(self, n: int, rows: int, columns: int, channels: int) -> tuple[int, ...]:
        return (n, channels, rows, columns) if self.is_planar else (n, rows, columns, channels)


@dataclass(frozen=True)
class OutputContract:
    """One output.

    Attributes:
        name: Name of the model's output.
        dequantize: Whether the integers are turned into the numbers that they stand for.
        format: ``RAWDATA_F32_NHWC``, ``RAWDATA_S16_NHWC`` or ``RAWDATA_U8_NHWC``.
        layout: ``NHWC`` or ``NCHW``.
    """

    name: str
    dequantize: bool = True
    format: str = "RAWDATA_F32_NHWC"
    layout: str = "NHWC"


@dataclass(frozen=True)
class ConvConfig:
    """How convolutions are quantised, whatever calibration would choose.

    Attributes:
        input_format: ``ALL_UINT8``, ``ALL_INT16``, ``CONV2D_INT16``, ``DEPTHWISE_INT16`` or empty.
        tensors: First inputs of convolutions that get 16 bits; the network's first convolution is exempt.
    """

    input_format: str = ""
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contract:
    """All inputs and outputs of a model, in the order of its configuration file."""

    inputs: tuple[InputContract, ...] = ()
    outputs: tuple[OutputContract, ...] = ()
    conv: ConvConfig = field(default_factory=ConvConfig)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Contract:
        """The contract that ``to_json`` described.

        Raises:
            KeyError: Something is missing.
            TypeError: Something has another type, or is not known.
            ValueError: A format, layout, alignment or number of channels is not allowed.
        """
        found = cls(
            tuple(from_plain(InputContract, one) for one in data["inputs"]),
            tuple(from_plain(OutputContract, one) for one in data["outputs"]),
            from_plain(ConvConfig, data["conv"]),
        )
        for fed in found.inputs:
            _check(fed.name, fed.input_format, (*IMAGE_FORMATS, *RAW_FORMATS))
            _check(fed.name, fed.training_format, ("RGB", "BGR", "GRAY", *RAW_FORMATS))
            _check(fed.name, fed.layout, LAYOUTS)
            for numbers in (fed.mean, fed.std):
                _check(fed.name, len(numbers), (0, 1, fed.channels))
            if min(fed.width_alignment, fed.height_alignment) < 1:
                raise ValueError(f"'{fed.name}': an alignment is below 1")
        for read in found.outputs:
            _check(read.name, read.format, RAW_FORMATS)
            _check(read.name, read.layout, LAYOUTS)
        return found


def _check(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"'{name}': {value!r} is not among {allowed}")
