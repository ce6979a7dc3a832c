"""quant_config.yaml: the documented file, defaults, and every key with a wrong value."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvm_ipu.base.errors import ConfigError
from tvm_ipu.base.quant_config import QuantConfig, read_quant_config

FULL = """\
QUANT_CONFIG:
  retrain_iter_num: 40
  device: 'cuda:0'
  mixed_precisions: [4, 8]
  use_preset_min_max_bit: {use}
  mp_rate: 0.4
{gap}PRESET_MIN_MAX_BIT: # preset tensor min/max and bit
{gap}  [
{gap}    {{name: "126", min: null, max: null, bit: 8}},
{gap}    {{name: "layer1.0.conv1.weight", min: [-1.0], max: [1], bit: 16}}
{gap}  ]
"""


def read(tmp_path: Path, text: str) -> QuantConfig:
    path = tmp_path / "quant_config.yaml"
    path.write_text(text)
    return read_quant_config(path)


@pytest.mark.parametrize("gap", ["", "  "])
def test_documented_file(tmp_path: Path, gap: str) -> None:
    config = read(tmp_path, FULL.format(use=1, gap=gap))
    assert (config.retrain_iter_num, config.device) == (40, "cuda:0")
    assert (config.mixed_precisions, config.mp_rate) == ((4, 8), 0.4)
    assert [(one["name"], one["bit"]) for one in config.presets] == [
        ("126", 8),
        ("layer1.0.conv1.weight", 16),
    ]
    assert read(tmp_path, FULL.format(use=0, gap=gap)).presets == ()


def test_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "QUANT_CONFIG: {}") == QuantConfig()
    assert read(tmp_path, "QUANT_CONFIG:\n  mp_rate:\n  device: cpu") == QuantConfig(device="cpu")


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("retrain_iter_num: 0", "a whole number"),
        ("retrain_iter_num: 1.5", "a whole number"),
        ("retrain_iter_num: yes", "a whole number"),
        ("device: gpu", "'cpu' or 'cuda:0'"),
        ("device: 'cuda:x'", "'cpu' or 'cuda:0'"),
        ("mixed_precisions: [4, 16]", "[4, 8] or [8, 16]"),
        ("mixed_precisions: 8", "[4, 8] or [8, 16]"),
        ("use_preset_min_max_bit: 2", "0 or 1"),
        ("mp_rate: 0.1", "0.25 to 1"),
        ("mp_rate: .nan", "0.25 to 1"),
        ("PRESET_MIN_MAX_BIT: [1]", "entries"),
    ],
)
def test_wrong_value(tmp_path: Path, line: str, allowed: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"quant_config\.yaml: QUANT_CONFIG: {line.split(':')[0]}: "
    ) as caught:
        read(tmp_path, f"QUANT_CONFIG:\n  {line}\n")
    assert allowed in caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no mapping QUANT_CONFIG"),
        ("QUANT_CONFIG: 4", "no mapping QUANT_CONFIG"),
        ("QUANT_CONFIG: {mp_rat: 1}", "there is no key 'mp_rat'"),
        ("QUANT_CONFIG: [", "is not YAML"),
        ("QUANT_CONFIG: " + "[" * 5000, "is not YAML"),
        ("QUANT_CONFIG: 2001-13-45", "is not YAML"),
        ("QUANT_CONFIG: !!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_wrong_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_unknown_key_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "QUANT_CONFIG: {mp_rat: 1}")
    assert caught.value.hint.startswith("did you mean 'mp_rate'? ")
    with pytest.raises(ConfigError, match="cannot read"):
        read_quant_config(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("mixture", "rate", "good"),
    [
        ((4, 8), 0.25, True),
        ((4, 8), 0.5, False),
        ((4, 8), 0.6, False),
        ((8, 16), 0.5, True),
        ((8, 16), 1.0, True),
        ((8, 16), 0.45, False),
        ((4, 8), None, True),
    ],
)
def test_rate_of_a_mixture(mixture: tuple[int, int], rate: float | None, good: bool) -> None:
    config = QuantConfig(mp_rate=rate)
    if good:
        config.check_rate(mixture)
        return
    with pytest.raises(ConfigError, match="does not go with mixed_precisions"):
        config.check_rate(mixture)
