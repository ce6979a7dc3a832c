"""``input_config.ini``: what the board feeds and reads, as a ``Contract``. Each rule is in ``KEYS``, once.

docs/input-config.md is made from ``KEYS``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tvm_ipu.base.contract import (
    IMAGE_FORMATS,
    LAYOUTS,
    RAW_FORMATS,
    Contract,
    ConvConfig,
    InputContract,
    OutputContract,
)
from tvm_ipu.base.ini import IniFile, read_ini

INPUT, OUTPUT, CONV = "INPUT_CONFIG", "OUTPUT_CONFIG", "CONV_CONFIG"
TRAINING_FORMATS = ("RGB", "BGR", "GRAY", *RAW_FORMATS)
INPUT_FORMATS = (*IMAGE_FORMATS, *RAW_FORMATS)
OUTPUT_FORMATS = ("RAWDATA_F32_NHWC", "RAWDATA_S16_NHWC", "RAWDATA_U8_NHWC")
CONV_FORMATS = ("ALL_UINT8", "ALL_INT16", "CONV2D_INT16", "DEPTHWISE_INT16")
MAX_NAMES = 2048
_BOARD_FORMATS = {
    "RGB": ("RGB", "BGR", "RGBA", "BGRA", "YUV_NV12"),
    "BGR": ("RGB", "BGR", "RGBA", "BGRA", "YUV_NV12"),
    "GRAY": ("GRAY", "YUV_NV12"),
}
"""What the board may feed to a model trained on a format; raw data are fed as they are."""


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        rule: What it says, its default, and what is not allowed.
        words: The values that are allowed; empty where they are names or numbers.
        required: The file is refused without it.
    """

    rule: str
    words: tuple[str, ...] = ()
    required: bool = False


KEYS = {
    INPUT: {
        "inputs": Key(
            "Names of the model's inputs, raw data after pictures and otherwise in the model's order; "
            f"together at most {MAX_NAMES} characters.",
            required=True,
        ),
        "training_input_formats": Key(
            "What each input was trained on; by default the same as `input_formats`.", TRAINING_FORMATS
        ),
        "input_formats": Key(
            "What the board feeds to each input; by default the same as `training_input_formats`. A model "
            "trained on RGB or BGR takes RGB, BGR, RGBA, BGRA or YUV_NV12, one trained on GRAY takes GRAY or "
            "YUV_NV12, and raw data are fed as they are in training. RAWDATA_U16_NHWC is for indices that go "
            "straight into an embedding.",
            INPUT_FORMATS,
        ),
        "quantizations": Key("Whether each input is quantised; by default TRUE.", ("TRUE", "FALSE")),
        "mean": Key(
            "What is subtracted from the pixels of each picture: a number, or one for each channel with `:` "
            "between them, in the order R, G, B; by default 0. Raw data have none."
        ),
        "std_value": Key(
            "What the pixels less the mean are divided by: a number, or one for each channel with `:` "
            "between them, in the order R, G, B; by default 1, and 0 means 1. Raw data have none."
        ),
        "input_width_alignment": Key(
            "Rows that the board feeds are padded to a multiple of so many pixels; by default what the file "
            "of the chip says, 1 where it says nothing, for YUV_NV12 2. Even for YUV_NV12, 1 for raw data."
        ),
        "input_height_alignment": Key(
            "Frames that the board feeds are padded to a multiple of so many rows; by default what the file "
            "of the chip says, 1 where it says nothing, for YUV_NV12 2. Even for YUV_NV12, 1 for raw data."
        ),
        "input_layouts": Key(
            "Layout of each input of four dimensions, also of what the preprocess script returns; by default "
            "NHWC. Inputs of other ranks have NHWC as a placeholder, RGBA and BGRA must be NHWC.",
            LAYOUTS,
        ),
    },
    OUTPUT: {
        "outputs": Key(
            f"Names of the model's outputs, in its order; together at most {MAX_NAMES} characters.",
            required=True,
        ),
        "dequantizations": Key(
            "Whether each output is turned from integers into numbers; by default TRUE.", ("TRUE", "FALSE")
        ),
        "output_layouts": Key("Layout of each output of four dimensions; by default NHWC.", LAYOUTS),
        "output_formats": Key(
            "Type of each output; by default RAWDATA_F32_NHWC where it is dequantised and RAWDATA_S16_NHWC "
            "where not. RAWDATA_F32_NHWC must be dequantised.",
            OUTPUT_FORMATS,
        ),
    },
    CONV: {
        "input_format": Key(
            "How convolutions are quantised, whatever calibration would recommend: all with 8 bits, all with "
            "16, or only the ordinary or the depthwise ones with 16.",
            CONV_FORMATS,
        ),
        "tensor_arrays": Key(
            "First inputs of convolutions that get 16 bits. The network's first convolution is exempt."
        ),
    },
}


def read_input_config(path: Path, alignment: tuple[int, int] = (1, 1)) -> tuple[Contract, IniFile]:
    """The contract that the file states, and the file, with which messages about the contract are made.

    Args:
        path: The file.
        alignment: Multiples of columns and rows that pictures have where the file does not say.

    Raises:
        ConfigError: A rule is broken; the message names file, line, section and key and cites the rule.
    """
    file = read_ini(path, KEYS)
    reader = _Reader(file, alignment)
    return Contract(reader.inputs(), reader.outputs(), reader.conv()), file


def refuse(file: IniFile, section: str, key: str, what: str, hint: str = "") -> NoReturn:
    """Refuse a value, with the key's rule as advice.

    Raises:
        ConfigError: Always.
    """
    file.fail(section, key, what, f"{hint}{'; ' if hint else ''}rule: {KEYS[section][key].rule}")


class _Reader:
    """Reads the keys of one file."""

    def __init__(self, file: IniFile, alignment: tuple[int, int]) -> None:
        self._file = file
        self._alignment = alignment

    def inputs(self) -> tuple[InputContract, ...]:
        names = self._names(INPUT, "inputs")
        training, board = self._formats(len(names))
        raw = [one in RAW_FORMATS for one in board]
        if sorted(raw) != raw:
            late = names[raw.index(True)]
            refuse(
                self._file,
                INPUT,
                "inputs",
                f"'{late}' is raw data and stands before a picture",
                "put it last",
            )
        pictures = raw.count(False)
        channels = [1 if one == "GRAY" else 3 for one in training[:pictures]]
        means = self._channels("mean", channels, 0.0)
        stds = self._channels("std_value", channels, 1.0)
        layouts = self._words(INPUT, "input_layouts", len(names)) or ["NHWC"] * len(names)
        for name, fmt, layout in zip(names, board, layouts, strict=True):
            if fmt in ("RGBA", "BGRA") and layout == "NCHW":
                refuse(self._file, INPUT, "input_layouts", f"'{name}' is {fmt} and cannot be NCHW")
        quantize = self._words(INPUT, "quantizations", len(names)) or ["TRUE"] * len(names)
        widths = self._alignments("input_width_alignment", board, self._alignment[0])
        heights = self._alignments("input_height_alignment", board, self._alignment[1])
        return tuple(
            InputContract(
                name=name,
                training_format=training[i],
                input_format=board[i],
                quantize=quantize[i] == "TRUE",
                mean=means[i] if i < pictures else (),
                std=tuple(value or 1.0 for value in stds[i]) if i < pictures else (),
                width_alignment=widths[i],
                height_alignment=heights[i],
                layout=layouts[i],
            )
            for i, name in enumerate(names)
        )

    def outputs(self) -> tuple[OutputContract, ...]:
        names = self._names(OUTPUT, "outputs")
        count = len(names)
        dequantize = [w == "TRUE" for w in self._words(OUTPUT, "dequantizations", count) or ["TRUE"] * count]
        default = ["RAWDATA_F32_NHWC" if one else "RAWDATA_S16_NHWC" for one in dequantize]
        formats = self._words(OUTPUT, "output_formats", count) or default
        for name, fmt, one in zip(names, formats, dequantize, strict=True):
            if fmt == "RAWDATA_F32_NHWC" and not one:
                what = f"'{name}' is RAWDATA_F32_NHWC, but its dequantizations is FALSE"
                refuse(self._file, OUTPUT, "output_formats", what)
        layouts = self._words(OUTPUT, "output_layouts", count) or ["NHWC"] * count
        rows = zip(names, dequantize, formats, layouts, strict=True)
        return tuple(OutputContract(*row) for row in rows)

    def conv(self) -> ConvConfig:
        formats = self._words(CONV, "input_format", 1)
        tensors = self._names(CONV, "tensor_arrays") if self._file.find(CONV, "tensor_arrays") else []
        return ConvConfig(formats[0] if formats else "", tuple(tensors))

    def _formats(self, count: int) -> tuple[list[str], list[str]]:
        """Formats of training and of the board, which go together."""
        training = self._words(INPUT, "training_input_formats", count)
        board = self._words(INPUT, "input_formats", count) or training
        if not board:
            refuse(self._file, INPUT, "input_formats", "is missing")
        if not training:
            missing = next((one for one in board if one not in TRAINING_FORMATS), None)
            if missing:
                refuse(
                    self._file, INPUT, "training_input_formats", f"is missing, and {missing} does not tell it"
                )
            training = board
        for one, fed in zip(training, board, strict=True):
            allowed = _BOARD_FORMATS.get(one, (one,))
            if fed not in allowed:
                what = f"{fed} cannot be fed to a model trained on {one}; allowed are {', '.join(allowed)}"
                refuse(self._file, INPUT, "input_formats", what)
        return training, board

    def _items(self, section: str, key: str) -> list[str]:
        """The values between commas; none where the key is not given."""
        entry = self._file.find(section, key)
        if entry is None:
            if KEYS[section][key].required:
                refuse(self._file, section, key, "is missing")
            return []
        items = entry.items()
        if "" in items:
            refuse(
                self._file,
                section,
                key,
                "is empty" if len(items) == 1 else "has an empty value between commas",
            )
        return items

    def _names(self, section: str, key: str) -> list[str]:
        names = self._items(section, key)
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            refuse(self._file, section, key, f"'{twice[0]}' is there twice")
        length = sum(map(len, names))
        if key != "tensor_arrays" and length > MAX_NAMES:
            refuse(self._file, section, key, f"the names have {length} characters")
        return names

    def _words(self, section: str, key: str, count: int) -> list[str]:
        words = [word.upper() for word in self._items(section, key)]
        allowed = KEYS[section][key].words
        for word in words:
            if word not in allowed:
                what = f"'{word}' is not allowed; allowed are {', '.join(allowed)}"
                refuse(self._file, section, key, what)
        self._check_count(section, key, len(words), (count,))
        return words

    def _check_count(self, section: str, key: str, found: int, allowed: Sequence[int]) -> None:
        if found and found not in allowed:
            of = {INPUT: "input", OUTPUT: "output", CONV: "network"}[section]
            wanted = " or ".join(map(str, dict.fromkeys(allowed)))
            what = f"has {found} values where {wanted} are needed, one for each {of} that takes one"
            if wanted == "0":
                what = f"is given, but no {of} takes a value"
            refuse(self._file, section, key, what)

    def _channels(self, key: str, channels: Sequence[int], default: float) -> list[tuple[float, ...]]:
        """A value for each channel of each picture."""
        items = self._items(INPUT, key)
        self._check_count(INPUT, key, len(items), (len(channels),))
        return [
            self._numbers(key, item, count)
            for item, count in zip(items or [str(default)] * len(channels), channels, strict=True)
        ]

    def _numbers(self, key: str, item: str, count: int) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in item.split(":"))
        except ValueError:
            refuse(self._file, INPUT, key, f"'{item}' is no number, nor numbers with ':' between them")
        least = -math.inf if key == "mean" else 0.0
        allowed = "finite numbers" if key == "mean" else "finite numbers from 0 on"
        if not all(math.isfinite(value) and value >= least for value in values):
            refuse(self._file, INPUT, key, f"'{item}' is out of range; allowed are {allowed}")
        if len(values) not in (1, count):
            what = f"'{item}' has {len(values)} channels where the input has {count}"
            refuse(self._file, INPUT, key, what)
        return values * count if len(values) == 1 and key == "mean" else values

    def _alignments(self, key: str, board: Sequence[str], default: int) -> list[int]:
        """An alignment for each input; raw data, which come last, need not have one."""
        items = self._items(INPUT, key)
        pictures = sum(fmt not in RAW_FORMATS for fmt in board)
        self._check_count(INPUT, key, len(items), (len(board), pictures))
        found = []
        for i, fmt in enumerate(board):
            value = int(items[i]) if i < len(items) and items[i].isdecimal() else 0
            if i >= len(items):
                value = math.lcm(default, 2) if fmt == "YUV_NV12" else 1 if fmt in RAW_FORMATS else default
            if value < 1:
                refuse(
                    self._file, INPUT, key, f"'{items[i]}' is not allowed; give a whole number of at least 1"
                )
            if (fmt == "YUV_NV12" and value % 2) or (fmt in RAW_FORMATS and value != 1):
                refuse(self._file, INPUT, key, f"{value} does not go with {fmt}")
            found.append(value)
        return found
