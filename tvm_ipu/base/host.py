"""The target that this machine is: its instruction set, caches and cores, from what Linux says about them."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tvm_ipu.base.errors import TargetError
from tvm_ipu.base.target import Target, load_target, target_names

_SPELLING: dict[str, dict[str, str]] = {
    "x86_64": {
        "ssse3": "ssse3",
        "sse4_2": "sse4.2",
        "popcnt": "popcnt",
        "movbe": "movbe",
        "abm": "lzcnt",
        "bmi1": "bmi",
        "bmi2": "bmi2",
        "avx2": "avx2",
        "fma": "fma",
        "f16c": "f16c",
        "gfni": "gfni",
        "avx_vnni": "avxvnni",
        "avx512f": "avx512f",
        "avx512bw": "avx512bw",
        "avx512cd": "avx512cd",
        "avx512dq": "avx512dq",
        "avx512vl": "avx512vl",
        "avx512_vnni": "avx512vnni",
        "avx512_bf16": "avx512bf16",
        "avx512_fp16": "avx512fp16",
        "avx512vbmi": "avx512vbmi",
        "avx512_vbmi2": "avx512vbmi2",
        "avx512_bitalg": "avx512bitalg",
        "avx512_vpopcntdq": "avx512vpopcntdq",
        "amx_tile": "amx-tile",
        "amx_int8": "amx-int8",
        "amx_bf16": "amx-bf16",
    },
    "aarch64": {"asimd": "neon", "asimdhp": "fullfp16", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16"},
    "arm": {"neon": "neon", "vfpv3": "vfp3", "vfpv4": "vfp4"},
}
"""By architecture: a feature in ``/proc/cpuinfo`` -> its name in LLVM and in ``Target.requires``."""

_EXTRA: dict[str, str] = {
    "gfni": "gfni",
    "avxvnni": "avxvnni",
    "avx512vnni": "vnni",
    "avx512bf16": "avx512bf16",
    "avx512fp16": "avx512fp16",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512vbmi2",
    "avx512bitalg": "avx512bitalg",
    "avx512vpopcntdq": "avx512vpopcntdq",
    "fullfp16": "fp16",
    "dotprod": "dotprod",
    "bf16": "bf16",
    "vfp4": "fma",
}
"""Features used where the machine has them, whatever its named target says -> what ``Target.isa`` calls them.
Those of AVX-512 ask for a named target with AVX-512."""


@dataclass(frozen=True)
class HostFacts:
    """What the operating system says about the machine.

    Attributes:
        arch: Architecture, spelled as in ``Target.arch``.
        model: Name of the processor; empty where it is not told.
        features: CPU features in LLVM's spelling that programs may use.
        cores: Physical cores that this process may use.
        l1_bytes: Level-1 data cache of a core; 0 where it is not told, as are the others.
        l2_bytes: A core's share of the level-2 cache.
        l3_bytes: Level-3 cache.
    """

    arch: str
    model: str
    features: frozenset[str]
    cores: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int


def host_arch() -> str:
    """Architecture of this process, spelled as in ``Target.arch`` where a target has it."""
    machine = platform.machine()
    if machine.startswith("armv") or (machine == "aarch64" and struct.calcsize("P") == 4):
        return "arm"
    return machine


def read_host(root: Path = Path("/"), arch: str = "") -> HostFacts:
    """Facts about this machine, or about the one whose ``proc`` and ``sys`` lie below ``root``."""
    arch = arch or host_arch()
    info = _cpuinfo(root / "proc/cpuinfo")
    if arch == "riscv64":
        features = _riscv_features(info.get("isa", ""))
    else:
        words = set(info.get("flags" if arch == "x86_64" else "Features", "").split())
        features = frozenset(name for word, name in _SPELLING.get(arch, {}).items() if word in words)
    cpus = root / "sys/devices/system/cpu"
    allowed = sorted(os.sched_getaffinity(0)) if root == Path("/") else _all_cpus(cpus)
    caches = _caches(cpus / f"cpu{allowed[0] if allowed else 0}")
    return HostFacts(
        arch=arch,
        model=info.get("model name", ""),
        features=features,
        cores=_physical_cores(cpus, allowed),
        l1_bytes=caches.get(1, 0),
        l2_bytes=caches.get(2, 0),
        l3_bytes=caches.get(3, 0),
    )


def detect_host() -> Target:
    """The best named target that this machine can run, with its own caches, cores and further CPU features.

    Raises:
        TargetError: No target runs on this machine.
    """
    return target_of(read_host())


def target_of(facts: HostFacts) -> Target:
    """The best named target that a machine can run, fitted to the machine.

    Raises:
        TargetError: There is none.
    """
    same_arch = [t for t in map(load_target, target_names()) if t.arch == facts.arch]
    runnable = [t for t in same_arch if facts.features.issuperset(t.requires)]
    if not runnable:
        raise TargetError(
            f"--target host: no target for this machine ({facts.arch} with {_listing(facts.features)})",
            f"targets for {facts.arch} are {_listing(t.name for t in same_arch)}",
        )
    base = max(runnable, key=lambda t: len(t.requires))
    extra = [
        name
        for name in sorted(facts.features & _EXTRA.keys() - set(base.requires))
        if not name.startswith("avx512") or "avx512f" in base.requires
    ]
    if "avx512vnni" in base.requires and "avxvnni" in extra:
        extra.remove("avxvnni")  # the same instructions once more
    return replace(
        base,
        description=f"this machine: {facts.model or facts.arch}",
        features=(*base.features, *(f"+{name}" for name in extra)),
        requires=(*base.requires, *extra),
        isa=base.isa | {_EXTRA[name] for name in extra},
        cores=facts.cores,
        l1_bytes=facts.l1_bytes or base.l1_bytes,
        l2_bytes=facts.l2_bytes or base.l2_bytes,
        l3_bytes=facts.l3_bytes if facts.l1_bytes else base.l3_bytes,
    )


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _cpuinfo(path: Path) -> dict[str, str]:
    """Keys of the first processor that ``/proc/cpuinfo`` describes."""
    if not path.is_file():
        return {}
    pairs: dict[str, str] = {}
    for line in path.read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        pairs.setdefault(key.strip(), value.strip())
    return pairs


def _riscv_features(isa: str) -> frozenset[str]:
    """Single-letter extensions of an ISA string such as ``rv64imafdcv_zicsr``; ``g`` stands for ``imafd``."""
    letters = isa.lower().split("_")[0].removeprefix("rv64").replace("g", "imafd")
    return frozenset(letters)


def _all_cpus(cpus: Path) -> list[int]:
    return sorted(int(d.name[3:]) for d in cpus.glob("cpu[0-9]*"))


def _physical_cores(cpus: Path, allowed: list[int]) -> int:
    """Cores among the processors ``allowed``; threads of one core count once."""
    cores = set()
    for cpu in allowed:
        topology = cpus / f"cpu{cpu}/topology"
        cores.add((_text(topology / "physical_package_id"), _text(topology / "core_id") or str(cpu)))
    return max(1, len(cores))


def _caches(cpu: Path) -> dict[int, int]:
    """Level -> bytes of data cache; level 2 is divided among the cores that share it."""
    threads = _count(_text(cpu / "topology/thread_siblings_list"))
    sizes: dict[int, int] = {}
    for index in sorted((cpu / "cache").glob("index*")):
        level, size = _text(index / "level"), _text(index / "size")
        if _text(index / "type") == "Instruction" or not level.isdigit() or not size:
            continue
        unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(size[-1], 1)
        sizes[int(level)] = int(size.rstrip("KMG")) * unit
        if level == "2":
            sizes[2] //= max(1, _count(_text(index / "shared_cpu_list")) // threads)
    return sizes


def _count(cpu_list: str) -> int:
    """Processors in a list such as ``0-3,8``; 1 for an empty one."""
    total = 0
    for part in filter(None, cpu_list.split(",")):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return max(1, total)


def _text(path: Path) -> str:
    """The file's text; empty where the kernel does not offer it."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
