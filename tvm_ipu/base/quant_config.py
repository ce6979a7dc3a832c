"""``quant_config.yaml``: the numbers of reconstruction and of mixed precision, checked."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tvm_ipu.base.errors import ConfigError
from tvm_ipu.base.ini import suggest

MIXTURES = ((4, 8), (8, 16))
RATES = {(4, 8): "at least 0.25 and less than 0.5", (8, 16): "at least 0.5 and at most 1"}


@dataclass(frozen=True)
class QuantConfig:
    """How Q10 to Q23 work in detail.

    Attributes:
        retrain_iter_num: Iterations of each layer's reconstruction.
        device: Where PyTorch computes, ``cpu`` or ``cuda:0``; empty for the best there is.
        mixed_precisions: Bits of a mixture, one of ``MIXTURES``; None for the mode's own.
        mp_rate: Size of a mixture's weights as a share of their size at 16 bits; None for the
            recommended one.
        presets: Entries ``name``, ``min``, ``max``, ``bit`` of tensors whose ranges or bits are given.
    """

    retrain_iter_num: int = 40
    device: str = ""
    mixed_precisions: tuple[int, int] | None = None
    mp_rate: float | None = None
    presets: tuple[Mapping[str, Any], ...] = ()

    def check_rate(self, mixture: tuple[int, int], source: str = "quant_config") -> None:
        """See that ``mp_rate`` goes with the bits that are mixed.

        Raises:
            ConfigError: It does not.
        """
        if self.mp_rate is None:
            return
        low, high = (0.25, 0.5) if mixture == (4, 8) else (0.5, 1.0)
        if not low <= self.mp_rate <= high or (mixture == (4, 8) and self.mp_rate == high):
            raise ConfigError(
                f"{source}: mp_rate: {self.mp_rate:g} does not go with mixed_precisions {list(mixture)}; "
                f"allowed is {RATES[mixture]}",
                "leave mp_rate out to have one recommended",
            )


def read_quant_config(path: Path) -> QuantConfig:
    """Read and check a file.

    Raises:
        ConfigError: It cannot be read, is not YAML, or a key or value is not allowed.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"cannot read '{path}': {getattr(err, 'strerror', '') or err}") from err
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as err:  # of dates, of deep nesting
        raise ConfigError(f"'{path}' is not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(content, dict) or not isinstance(content.get("QUANT_CONFIG"), dict):
        raise ConfigError(
            f"{path}: there is no mapping QUANT_CONFIG", "write 'QUANT_CONFIG:' and its keys below"
        )
    values = {**content.pop("QUANT_CONFIG"), **content}  # the presets may stand beside it
    return _Reader(path, values).read()


class _Reader:
    """Takes the keys of one file."""

    def __init__(self, path: Path, values: dict[Any, Any]) -> None:
        self._path, self._values = path, values

    def read(self) -> QuantConfig:
        for key in self._values:
            if key not in _KEYS:
                hint = f"{suggest(str(key), _KEYS)}allowed are {', '.join(_KEYS)}"
                raise ConfigError(f"{self._path}: QUANT_CONFIG: there is no key '{key}'", hint)
        found = {key: self._value(key) for key, value in self._values.items() if value is not None}
        presets = found.pop("PRESET_MIN_MAX_BIT", ())
        if not found.pop("use_preset_min_max_bit", 0):
            presets = ()
        if "mixed_precisions" in found:
            found["mixed_precisions"] = tuple(found["mixed_precisions"])
        return QuantConfig(**found, presets=tuple(presets))

    def _value(self, key: str) -> Any:
        value = self._values[key]
        allowed, check = _KEYS[key]
        if not check(value):
            self._refuse(key, value, allowed)
        return value

    def _refuse(self, key: str, value: object, allowed: str) -> NoReturn:
        raise ConfigError(
            f"{self._path}: QUANT_CONFIG: {key}: {reprlib.repr(value)} is not allowed; allowed is {allowed}"
        )


def _is_number(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _is_device(value: object) -> bool:
    return isinstance(value, str) and (value in ("cpu", "cuda") or value.removeprefix("cuda:").isdecimal())


def _is_presets(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and "name" in one for one in value)


_KEYS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "retrain_iter_num": (
        "a whole number from 1 to 1000000",
        lambda value: isinstance(value, int) and _is_number(value, 1, 10**6),
    ),
    "device": ("'cpu' or 'cuda:0'", _is_device),
    "mixed_precisions": (
        "[4, 8] or [8, 16]",
        lambda value: isinstance(value, list) and tuple(value) in MIXTURES,
    ),
    "use_preset_min_max_bit": ("0 or 1", lambda value: value in (0, 1)),
    "mp_rate": ("a number from 0.25 to 1", lambda value: _is_number(value, 0.25, 1)),
    "PRESET_MIN_MAX_BIT": ("a list of entries {name, min, max, bit}", _is_presets),
}
