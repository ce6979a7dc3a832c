"""What this machine can compile and run, as data for ``tvm-ipu doctor``."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from tvm_ipu.base.errors import TargetError
from tvm_ipu.base.host import HostFacts, detect_host, read_host
from tvm_ipu.base.target import Target, load_target, target_names
from tvm_ipu.base.toolchain import Tool, installed_tools, toolchains

TVM_PAIR = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
"""The releases that work together; with a newer apache-tvm-ffi, layout conversion and tuning crash."""

_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "ziglang", "onnxruntime", "openvino")
_PROGRAMS = ("gcc", "cc", "clang", "zig", "ld", "ld.lld")


@dataclass(frozen=True)
class TargetCheck:
    """What this machine can do for one target.

    Attributes:
        name: The target.
        runs: Its images run on this machine.
        emulator: qemu program that runs them here; empty where there is none or none is needed.
        toolchain: What its kernels are linked with; empty where there is nothing.
    """

    name: str
    runs: bool
    emulator: str
    toolchain: str


@dataclass(frozen=True)
class Report:
    """The state of this machine.

    Attributes:
        system: Operating system and its release.
        python: Version of the interpreter.
        host: What the operating system says about the processor.
        target: What ``--target host`` resolves to; None where no target runs here.
        tools: Compilers, linkers and emulators found.
        targets: All targets, sorted by name.
        packages: Python package -> version; empty where it is not installed.
        problems: What does not work here and what to do about it, one sentence each; empty where all is well.
            A target that needs tools from elsewhere is no problem.
    """

    system: str
    python: str
    host: HostFacts
    target: Target | None
    tools: tuple[Tool, ...]
    targets: tuple[TargetCheck, ...]
    packages: dict[str, str]
    problems: tuple[str, ...]


def examine() -> Report:
    """Look at this machine; runs the compilers it finds for their versions."""
    known = [load_target(name) for name in target_names()]
    host = read_host()
    problems = []
    target: Target | None = None
    try:
        target = detect_host()
    except TargetError as err:
        problems.append(str(err))
    emulators = sorted({t.qemu[0] for t in known if t.qemu})
    tools = installed_tools((*_PROGRAMS, *emulators))
    found = {tool.name for tool in tools}
    if target:
        known += [load_target(name) for name in target_names("ipu")]
    checks = tuple(_check(t, host, found) for t in known)
    packages = {name: _version(name) for name in ("tvm_ipu", *_PACKAGES)}
    problems += _package_problems(packages)
    if target and next(toolchains(target), None) is None:
        problems.append(
            "no compiler and linker: install gcc and binutils, or run pip install 'tvm_ipu[cross]'"
        )
    return Report(
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        host=host,
        target=target,
        tools=tuple(tools),
        targets=checks,
        packages=packages,
        problems=tuple(problems),
    )


def _check(target: Target, host: HostFacts, programs: set[str]) -> TargetCheck:
    runs = target.arch == host.arch and host.features.issuperset(target.requires)
    emulator = target.qemu[0] if target.qemu and target.qemu[0] in programs and not runs else ""
    tools = next(toolchains(target), None)
    return TargetCheck(target.name, runs, emulator, tools.name if tools else "")


def _package_problems(packages: dict[str, str]) -> list[str]:
    installed = {name: packages[name] for name in TVM_PAIR}
    if installed == TVM_PAIR:
        return []
    pair = " ".join(f"{name}=={wanted}" for name, wanted in TVM_PAIR.items())
    found = ", ".join(f"{name} {release or 'missing'}" for name, release in installed.items())
    return [f"{found}: these do not work together with tvm_ipu; run pip install {pair}"]


def _version(package: str) -> str:
    """Version of an installed package; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
