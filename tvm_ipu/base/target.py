"""What a chip is: instruction set, cores, caches and memories, read from one TOML file in ``targets/``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from tvm_ipu.base.errors import TargetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PACKAGE_DIR = Path(__file__).resolve().parent.parent
_ALLOWED: dict[str, tuple[object, ...]] = {
    "arch": ("x86_64", "aarch64", "arm", "riscv64", "hexagon"),
    "pointer_bits": (32, 64),
    "numerics": ("float-requant", "integer-requant"),
    "activation_dtype": ("uint8", "int8"),
}


@dataclass(frozen=True)
class Target:
    """A chip. How to compile for it is not here but in ``options.CompileOptions``.

    Attributes:
        name: Name of the file without ``.toml``, as given to ``--target``.
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

    def lanes(self, bits: int = 32) -> int:
        """Elements of ``bits`` bits in one vector register; 1 where the chip has no vectors."""
        return max(1, self.vector_bits // bits)


def target_dirs() -> tuple[Path, ...]:
    """Folders searched for ``<name>.toml``: inside the wheel, then the source tree."""
    return (_PACKAGE_DIR / "_targets", _PACKAGE_DIR.parent / "targets")


def target_names() -> list[str]:
    """Names of all targets that this build knows, sorted."""
    return sorted({f.stem for d in target_dirs() if d.is_dir() for f in d.glob("*.toml")})


@cache
def load_target(name: str) -> Target:
    """Read the target ``name`` from its file; ``host`` resolves to the best one this machine can run.

    Raises:
        TargetError: No such target, or its file has an unknown or missing key.
    """
    if name == "host":
        from tvm_ipu.base.host import detect_host  # not at import: it runs system calls

        return detect_host()
    for folder in target_dirs():
        path = folder / f"{name}.toml"
        if path.is_file():
            return parse_target(path)
    raise TargetError(f"--target: unknown target '{name}'", f"known are host, {', '.join(target_names())}")


def parse_target(path: Path) -> Target:
    """Read one target file.

    Raises:
        TargetError: The file cannot be read, is not TOML or has an unknown, missing or wrongly typed key.
    """
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise TargetError(f"{path}: cannot be read: {err.strerror}") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise TargetError(f"{path}: not a TOML file: {err}") from err
    types = {f.name: str(f.type) for f in fields(Target) if f.name != "name"}
    for key, value in data.items():
        if key not in types:
            raise TargetError(f"{path}: unknown key '{key}'", f"allowed are {', '.join(sorted(types))}")
        data[key] = _convert(path, key, value, types[key])
    for key in ("description", "arch", "triple"):
        if key not in data:
            raise TargetError(f"{path}: key '{key}' is missing")
    return Target(name=path.stem, **data)


def _convert(path: Path, key: str, value: object, wanted: str) -> object:
    """A value from the file as the field's type, ``wanted``."""
    if wanted == "str":
        valid = isinstance(value, str)
    elif wanted == "int":
        valid = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    else:
        valid = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if not valid:
        kind = {"str": "a string", "int": "a number, 0 or more"}.get(wanted, "a list of strings")
        raise TargetError(f"{path}: key '{key}' is {value!r} but must be {kind}")
    if key in _ALLOWED and value not in _ALLOWED[key]:
        raise TargetError(
            f"{path}: key '{key}' is {value!r}", f"allowed are {', '.join(map(str, _ALLOWED[key]))}"
        )
    if isinstance(value, list):
        return frozenset(value) if wanted.startswith("frozenset") else tuple(value)
    return value
