from __future__ import annotations

from pathlib import Path

import pytest

from tvm_ipu.base import doctor
from tvm_ipu.base.errors import TargetError
from tvm_ipu.base.host import detect_host, read_host, target_of
from tvm_ipu.base.target import Target, load_target
from tvm_ipu.cli.main import main

X86_V3 = "fpu sse sse2 pni ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt avx f16c abm bmi1 avx2 bmi2"
X86_V4 = f"{X86_V3} avx512f avx512dq avx512cd avx512bw avx512vl"
ZEN_5 = (
    f"{X86_V4} avx_vnni avx512_bf16 avx512vbmi avx512_vbmi2 gfni avx512_vnni avx512_bitalg avx512_vpopcntdq"
)
SAPPHIRE_RAPIDS = f"{X86_V4} avx_vnni avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8"
CORTEX_A53 = "fp asimd evtstrm crc32 cpuid"
CORTEX_A76 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
)
NEOVERSE_V1 = f"{CORTEX_A76} sve i8mm bf16 svebf16"


class Machine:
    """A machine's ``proc`` and ``sys``, as Linux lays them out."""

    def __init__(self, root: Path, cpuinfo: str) -> None:
        self.root = root
        (root / "proc").mkdir()
        (root / "proc/cpuinfo").write_text(cpuinfo)

    def add_cpu(self, cpu: int, core: int, siblings: str, caches: list[tuple[str, str, str, str]]) -> None:
        folder = self.root / f"sys/devices/system/cpu/cpu{cpu}"
        (folder / "topology").mkdir(parents=True)
        (folder / "topology/core_id").write_text(f"{core}\n")
        (folder / "topology/physical_package_id").write_text("0\n")
        (folder / "topology/thread_siblings_list").write_text(f"{siblings}\n")
        for index, values in enumerate(caches):
            cache = folder / f"cache/index{index}"
            cache.mkdir(parents=True)
            for name, value in zip(("level", "type", "size", "shared_cpu_list"), values, strict=True):
                (cache / name).write_text(f"{value}\n")


def host_of(tmp_path: Path, arch: str, features: str) -> Target:
    key = {"x86_64": "flags", "riscv64": "isa"}.get(arch, "Features")
    Machine(tmp_path, f"processor\t: 0\n{key}\t\t: {features}\n\nprocessor\t: 1\n{key}\t\t: none\n")
    return target_of(read_host(tmp_path, arch))


@pytest.mark.parametrize(
    ("arch", "features", "name"),
    [
        ("x86_64", "sse sse2 pni ssse3 sse4_1 sse4_2 popcnt", "x86-64-v2"),
        ("x86_64", X86_V3, "x86-64-v3"),
        ("x86_64", X86_V4, "x86-64-v4"),
        ("x86_64", f"{X86_V4} avx512_vnni", "x86-64-vnni"),
        ("x86_64", ZEN_5, "x86-64-vnni-bf16"),
        ("x86_64", SAPPHIRE_RAPIDS, "x86-64-amx"),
        ("aarch64", CORTEX_A53, "aarch64-neon"),
        ("aarch64", CORTEX_A76, "aarch64-dotprod"),
        ("aarch64", NEOVERSE_V1, "aarch64-i8mm"),
        ("arm", "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt", "armv7-neon"),
        ("riscv64", "rv64imafdc_zicntr_zicsr_zifencei", "riscv64"),
        ("riscv64", "rv64imafdcv_zicbom_zvfh", "riscv64-v"),
    ],
)
def test_best_named_target(arch: str, features: str, name: str, tmp_path: Path) -> None:
    assert host_of(tmp_path, arch, features).name == name


def test_further_features_are_used_and_required(tmp_path: Path) -> None:
    host, named = host_of(tmp_path, "x86_64", ZEN_5), load_target("x86-64-vnni")
    extra = ["avx512bf16", "avx512bitalg", "avx512vbmi", "avx512vbmi2", "avx512vpopcntdq", "gfni"]
    assert host.features == (*named.features, *(f"+{name}" for name in extra))
    assert host.requires == (*named.requires, *extra)
    assert host.isa == named.isa | set(extra)


def test_vnni_without_avx512(tmp_path: Path) -> None:
    host = host_of(tmp_path, "x86_64", f"{X86_V3} avx_vnni gfni")
    assert (host.name, host.vector_bits, host.features) == ("x86-64-v3", 256, ("+avxvnni", "+gfni"))


def test_avx512_that_is_not_whole_is_not_used(tmp_path: Path) -> None:
    host = host_of(tmp_path, "x86_64", f"{X86_V3} avx512f avx512cd avx512_vnni")
    assert (host.name, host.features) == ("x86-64-v3", ())


@pytest.mark.parametrize(("arch", "features"), [("x86_64", "sse sse2"), ("s390x", ""), ("arm", "vfp edsp")])
def test_no_target_for_the_machine(arch: str, features: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=f"--target host: no target for this machine \\({arch} with"):
        host_of(tmp_path, arch, features)


def test_caches_and_cores(tmp_path: Path) -> None:
    machine = Machine(tmp_path, f"model name : Some CPU\nflags : {X86_V3}\n")
    for cpu in range(8):  # two threads a core, two cores share a level-2 cache
        siblings, cluster = f"{cpu % 4},{cpu % 4 + 4}", cpu % 4 // 2 * 2
        machine.add_cpu(
            cpu,
            cpu % 4,
            siblings,
            [
                ("1", "Data", "48K", siblings),
                ("1", "Instruction", "32K", siblings),
                ("2", "Unified", "2048K", f"{cluster}-{cluster + 1},{cluster + 4}-{cluster + 5}"),
                ("3", "Unified", "32M", "0-7"),
            ],
        )
    host = target_of(read_host(tmp_path, "x86_64"))
    assert host.description == "this machine: Some CPU"
    assert (host.cores, host.l1_bytes, host.l2_bytes, host.l3_bytes) == (4, 48 << 10, 1 << 20, 32 << 20)


def test_caches_that_are_not_told(tmp_path: Path) -> None:
    host, named = host_of(tmp_path, "aarch64", CORTEX_A76), load_target("aarch64-dotprod")
    assert (host.l1_bytes, host.l2_bytes, host.l3_bytes) == (named.l1_bytes, named.l2_bytes, named.l3_bytes)


def test_this_machine() -> None:
    host = detect_host()
    assert host == load_target("host")
    assert host.name in doctor.target_names()
    assert host.cores >= 1
    assert host.l1_bytes >= 8192


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    report = doctor.examine()
    assert report.problems == ()
    assert report.target == detect_host()
    assert report.packages["apache-tvm"] == doctor.TVM_PAIR["apache-tvm"]
    assert {check.name for check in report.targets if check.runs} >= {report.target.name}
    assert all(tool.version for tool in report.tools)

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("tvm_ipu.base.toolchain.find_zig", lambda: None)
    monkeypatch.setattr(doctor, "TVM_PAIR", {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.2"})
    bare = doctor.examine()
    assert (bare.tools, {c.toolchain for c in bare.targets}, {c.emulator for c in bare.targets}) == (
        (),
        {""},
        {""},
    )
    pair, tools = bare.problems
    assert "apache-tvm-ffi 0.1.14.post1: these do not work together" in pair
    assert tools == "no compiler and linker: install gcc and binutils, or run pip install 'tvm_ipu[cross]'"


def test_doctor_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for text in ("host target", "hexagon-v67", "apache-tvm-ffi  0.1.14.post1", detect_host().name):
        assert text in printed
    monkeypatch.setattr(doctor, "TVM_PAIR", {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.2"})
    assert main(["doctor"]) == 1
    assert "problem: apache-tvm 0.27.0.post1, apache-tvm-ffi 0.1.14.post1:" in capsys.readouterr().out
