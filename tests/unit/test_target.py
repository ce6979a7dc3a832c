from __future__ import annotations

import re
from pathlib import Path

import pytest
from tvm.target import codegen

from tests.unit import link_kit as kit
from tvm_ipu.base.chip import parse_chip
from tvm_ipu.base.contract import Contract, InputContract, OutputContract
from tvm_ipu.base.errors import TargetError
from tvm_ipu.base.target import load_target, parse_target, target_names
from tvm_ipu.codegen.tvm_target import to_tvm, to_tvm_lowering
from tvm_ipu.runtime.build import SOURCE_DIR

NAMED = [
    *("aarch64-dotprod", "aarch64-i8mm", "aarch64-neon", "armv7-neon", "hexagon-v67", "riscv64", "riscv64-v"),
    *("x86-64-amx", "x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-vnni", "x86-64-vnni-bf16"),
]
GOOD = 'description = "a chip"\narch = "aarch64"\ntriple = "aarch64-unknown-linux-gnu"\n'


def test_targets() -> None:
    assert target_names() == NAMED
    assert target_names("ipu") == ["ipu-ref"]


def test_a_chip_is_simulated_by_a_machine() -> None:
    target, machine = load_target("ipu-ref@aarch64-neon"), load_target("aarch64-neon")
    assert (target.name, target.machine, target.kind) == ("ipu-ref@aarch64-neon", "aarch64-neon", "ipu")
    assert (target.numerics, machine.numerics) == ("integer-requant", "float-requant")
    assert (target.triple, target.requires) == (machine.triple, machine.requires)
    assert target.chip is not None
    assert target.chip.convolution_bits == (8, 16)
    assert load_target("ipu-ref").machine == load_target("host").name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ipu-ref@z80", "unknown target 'z80'"),
        (
            "aarch64-neon@host",
            r"'aarch64-neon' in .* is no chip to simulate \(allowed before '@' are ipu-ref\)",
        ),
    ],
)
def test_wrong_simulation(name: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        load_target(name)


CHIP = 'kind = "ipu"\ndescription = "a chip"\nconvolution_bits = [8]\noperator_bits = [16]\n'


def test_formats_of_a_chip(tmp_path: Path) -> None:
    (tmp_path / "chip.toml").write_text(CHIP + 'input_formats = ["RGB"]')
    chip = parse_chip(tmp_path / "chip.toml")
    chip.check(Contract((InputContract("x", "RGB", "RGB"),), (OutputContract("y"),)))
    with pytest.raises(TargetError, match=r"input_formats: 'BGR' of input 'x' is not known to target 'chip'"):
        chip.check(Contract((InputContract("x", "RGB", "BGR"),)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CHIP.replace("[8]", "[12]"), r"'convolution_bits' is \[12\] \(allowed are 8, 16\)"),
        (CHIP.replace("[16]", '["16"]'), r"'operator_bits' is \['16'\] but must be a list of numbers"),
        (CHIP.replace("operator_bits = [16]\n", ""), "key 'operator_bits' is missing"),
        (CHIP + 'numerics = "float-requant"', r"allowed are integer-requant"),
        (CHIP + 'triple = "x"', "unknown key 'triple'"),
    ],
)
def test_wrong_chip_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "chip.toml").write_text(text)
    with pytest.raises(TargetError, match=message):
        parse_chip(tmp_path / "chip.toml")


def test_unknown_target() -> None:
    with pytest.raises(
        TargetError, match=r"unknown target 'z80' \(known are host, aarch64-dotprod, .*x86-64-vnni"
    ):
        load_target("z80")


@pytest.mark.parametrize("name", NAMED)
def test_features_are_known_to_the_runtime(name: str) -> None:
    target = load_target(name)
    known = set(re.findall(r'"([\w.-]+)"', (SOURCE_DIR / "cpu.c").read_text()))
    assert set(target.requires) <= known
    assert {f[1:] for f in target.features if f[0] == "+"} <= set(target.requires)


USED_WITHOUT_BEING_NAMED = {
    # what comes with a feature that is named
    *("sse3", "ssse3", "sse4.1", "crc32", "avx", "xsave", "vfp2", "vfp3d16", "fp-armv8", "hvx"),
    *("v60", "v62", "v65", "v66", "hvxv60", "hvxv62", "hvxv65", "hvxv66", "i"),
    # what every 64-bit x86 has, or what kernels do not use: atomics, flags in AH
    *("cmov", "cx8", "fxsr", "mmx", "sse", "sse2", "cx16", "sahf"),
}


@pytest.mark.parametrize("name", NAMED)
def test_images_require_what_llvm_may_use(name: str) -> None:
    target = load_target(name)
    known = set(re.findall(r'"([\w.-]+)"', (SOURCE_DIR / "cpu.c").read_text()))
    enabled = {str(f) for f in codegen.llvm_get_cpu_features(to_tvm(target))}
    assert enabled & known <= set(target.requires) | USED_WITHOUT_BEING_NAMED
    assert set(target.requires) <= enabled


@pytest.mark.parametrize(
    ("name", "used", "unused"),
    [
        ("x86-64-v2", "xmm", "ymm"),
        ("x86-64-v3", "ymm", "zmm"),
        ("x86-64-v4", "zmm", "ymm"),
        ("x86-64-vnni", "zmm", "ymm"),
        ("x86-64-amx", "zmm", "ymm"),
    ],
)
def test_llvm_uses_whole_vector_registers(name: str, used: str, unused: str) -> None:
    text = kit.assembly(kit.matmul_case(), load_target(name))
    assert re.search(rf"v?f?m(ul|add)\w*ps.*%{used}", text)
    assert f"%{unused}" not in text


def test_rvv_code_has_vectors_of_the_scheduled_length() -> None:
    text = kit.assembly(kit.matmul_case(), load_target("riscv64-v"))
    assert "vfmacc" in text
    assert "vsetivli\tzero, 16, e32" in text


def test_lowering_differs_from_code_generation_in_scalable_vectors_only() -> None:
    pairs = {n: (str(to_tvm(load_target(n))), str(to_tvm_lowering(load_target(n)))) for n in NAMED}
    assert [n for n, (final, lowering) in pairs.items() if final != lowering] == ["riscv64-v"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description = ", r"chip\.toml: not a TOML file"),
        (GOOD + 'colour = "red"', r"unknown key 'colour' \(allowed are activation_dtype, arch, cores"),
        ('description = "a chip"\narch = "aarch64"', r"key 'triple' is missing"),
        (GOOD + 'cores = "two"', r"key 'cores' is 'two' but must be a number, 0 or more"),
        (GOOD + "l1_bytes = -1", r"key 'l1_bytes' is -1 but must be a number, 0 or more"),
        (GOOD + "cores = true", r"key 'cores' is True but must be a number"),
        (GOOD + 'features = "+sve"', r"key 'features' is '\+sve' but must be a list of strings"),
        (GOOD + "isa = [1]", r"key 'isa' is \[1\] but must be a list of strings"),
        (GOOD + "cpu = 1", r"key 'cpu' is 1 but must be a string"),
        (GOOD + "pointer_bits = 16", r"key 'pointer_bits' is 16 \(allowed are 32, 64\)"),
        (
            GOOD + 'numerics = "exact"',
            r"key 'numerics' is 'exact' \(allowed are float-requant, integer-requant\)",
        ),
        (GOOD.replace("aarch64", "z80"), r"key 'arch' is 'z80' \(allowed are x86_64, aarch64, arm"),
    ],
)
def test_wrong_target_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "chip.toml").write_text(text)
    with pytest.raises(TargetError, match=message):
        parse_target(tmp_path / "chip.toml")


def test_target_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"chip\.toml: cannot be read: No such file"):
        parse_target(tmp_path / "chip.toml")


def test_smallest_target_file(tmp_path: Path) -> None:
    (tmp_path / "chip.toml").write_text(GOOD)
    target = parse_target(tmp_path / "chip.toml")
    assert (target.name, target.arch, target.lanes(), target.lanes(8)) == ("chip", "aarch64", 4, 16)
