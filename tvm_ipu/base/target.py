"""What a chip is: instruction set, cores, caches and memories, read from one TOML file in ``targets/``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tvm_ipu.base.chip import Chip, parse_chip
from tvm_ipu.base.errors import TargetError
from tvm_ipu.base.toml_file import checked, read_toml

KINDS = ("cpu", "ipu")
"""What runs an image: the chip itself, or machine code of another one that computes the same bytes."""

_PACKAGE_DIR = Path(__file__).resolve().parent.parent
_ALLOWED: dict[str, tuple[object, ...]] = {
    "kind": KINDS,
    "arch": ("x86_64", "aarch64", "arm", "riscv64", "hexagon"),
    "pointer_bits": (32, 64),
    "numerics": ("float-requant", "integer-requant"),
    "activation_dtype": ("uint8", "int8"),
}


@dataclass(frozen=True)
class Target:
    """A chip. How to compile for it is not here but in ``options.CompileOptions``.

    Attributes:
        name: Name of the file without ``.toml``, as given to ``--target``; of a chip that is simulated,
            its name, ``@`` and the machine's.
        description: One line for ``tvm-ipu targets``.
        arch: ``x86_64``, ``aarch64``, ``arm``, ``riscv64`` or ``hexagon``; fixes the C calling convention.
        triple: LLVM target triple of the kernels.
        cpu: LLVM ``mcpu``; empty for the triple's default.
        features: LLVM ``mattr`` entries, each with its sign (``+v``).
        requires: CPU features, in the runtime's spelling, that an image for this chip needs to run.
        pointer_bits: 32 or 64.
        vector_bits: Width in bits of the vector registers that float kernels use; 0 where there are none.
        vector_registers: Number of those registers (of float registers where there are none).
        cores: Cores that the analytic model assumes.
        l1_bytes: Level-1 data cache of one core.
        l2_bytes: Level-2 cache of one core.
        l3_bytes: Last-level cache, shared; 0 where there is none.
        zig_triple: Target of ``zig cc`` for the native runner, linked statically.
        zig_cpu: ``-mcpu`` of ``zig cc``; empty for the default.
        qemu: Command line prefix that runs the chip's programs on another machine.
        numerics: ``float-requant`` or ``integer-requant`` (docs/numerics.md).
        activation_dtype: ``uint8`` or ``int8``: which 8-bit tensors multiply fastest with int8 weights.
        isa: Instruction-set extensions that templates may ask for (``avx512``, ``vnni``, ``hvx`` ...).
        kind: ``cpu``, or ``ipu`` where a chip is simulated.
        chip: What is simulated on this machine; None where it computes for itself.
    """

    name: str
    description: str
    arch: str
    triple: str
    cpu: str = ""
    features: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    pointer_bits: int = 64
    vector_bits: int = 128
    vector_registers: int = 32
    cores: int = 2
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    l3_bytes: int = 0
    zig_triple: str = ""
    zig_cpu: str = ""
    qemu: tuple[str, ...] = ()
    numerics: str = "float-requant"
    activation_dtype: str = "uint8"
    isa: frozenset[str] = frozenset()
    kind: str = "cpu"
    chip: Chip | None = None

    @property
    def alignment(self) -> tuple[int, int]:
        """Multiples of columns and rows that pictures have where their model does not say."""
        return (self.chip.width_alignment, self.chip.height_alignment) if self.chip else (1, 1)

    @property
    def machine(self) -> str:
        """Name of the machine that the kernels are for."""
        return self.name.rpartition("@")[2]

    def lanes(self, bits: int = 32) -> int:
        """Elements of ``bits`` bits in one vector register; 1 where the chip has no vectors."""
        return max(1, self.vector_bits // bits)


def target_dirs() -> tuple[Path, ...]:
    """Folders searched for ``<name>.toml``: inside the wheel, then the source tree."""
    return (_PACKAGE_DIR / "_targets", _PACKAGE_DIR.parent / "targets")


def target_names(kind: str = "cpu") -> list[str]:
    """Names of all targets of a kind that this build knows, sorted."""
    files = {f.stem: f for d in reversed(target_dirs()) if d.is_dir() for f in d.glob("*.toml")}
    return sorted(name for name, file in files.items() if _kind(file) == kind)


@cache
def load_target(name: str) -> Target:
    """Read the target ``name`` from its file; ``host`` resolves to the best one this machine can run.

    ``CHIP@MACHINE`` is a chip of the kind ``ipu``, simulated by code for the target ``MACHINE``; ``CHIP``
    alone is simulated on this machine.

    Raises:
        TargetError: No such target, or its file has an unknown or missing key.
    """
    if name == "host":
        from tvm_ipu.base.host import detect_host  # not at import: it runs system calls

        return detect_host()
    first, at, machine = name.partition("@")
    for folder in target_dirs():
        path = folder / f"{first}.toml"
        if not path.is_file():
            continue
        if _kind(path) == "ipu":
            return simulated(parse_chip(path), load_target(machine or "host"))
        if at:
            raise TargetError(
                f"--target: '{first}' in '{name}' is no chip to simulate",
                f"allowed before '@' are {', '.join(target_names('ipu'))}",
            )
        return parse_target(path)
    known = ["host", *target_names(), *target_names("ipu")]
    near = difflib.get_close_matches(first, known, 3, 0.6)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise TargetError(f"unknown target '{name}'", f"{meant}known are {', '.join(known)}")


@cache
def _kind(path: Path) -> str:
    return str(read_toml(path).get("kind", "cpu"))


def parse_target(path: Path) -> Target:
    """Read the file of one CPU.

    Raises:
        TargetError: The file cannot be read, is not TOML or has an unknown, missing or wrongly typed key.
    """
    data = read_toml(path)
    return Target(name=path.stem, **checked(path, data, Target, _ALLOWED, {"name", "chip"}))


def simulated(chip: Chip, machine: Target) -> Target:
    """A machine as it computes what a chip with numerics of its own would."""
    return replace(
        machine,
        name=f"{chip.name}@{machine.name}",
        description=f"{chip.description}; simulated on {machine.name}",
        numerics=chip.numerics,
        kind="ipu",
        chip=chip,
    )
