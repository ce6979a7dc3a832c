"""Link kernels into code that runs wherever it is mapped (docs/decisions/0002-flat-code.md)."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm_ipu.base.cache import cache_dir
from tvm_ipu.base.errors import ToolError
from tvm_ipu.base.target import Target
from tvm_ipu.base.toolchain import Toolchain, find_toolchain, run_tool
from tvm_ipu.codegen.elf import SHF_ALLOC, SHN_UNDEF, SHT_SYMTAB, STB_GLOBAL, ElfFile

_SUPPORT_SOURCE = Path(__file__).with_name("support.c")
_LAYOUT = Path(__file__).with_name("kernels.ld")
_COMPILER_FLAGS = (
    *("-std=c11", "-O2", "-fPIC", "-ffreestanding", "-ffunction-sections", "-fno-stack-protector"),
    *("-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-Wall", "-Wextra"),
)
_LINKER_FLAGS = ("-shared", "-Bsymbolic", "--gc-sections", "--build-id=none", "-z", "notext")
"""``notext`` lets relocations of code through, so that they are reported here with their symbol."""

_CODE_SECTIONS = (".text", ".rodata")
_REPORT = "this is a bug in code generation; please report it with the model"
_LOADER_SECTIONS = {
    *(".dynsym", ".dynstr", ".gnu.hash", ".hash", ".dynamic", ".rel.dyn", ".rela.dyn", ".plt", ".got"),
    ".ARM.exidx",
}
"""What the linker adds for a dynamic loader; only a relocation could make code use it."""


@dataclass(frozen=True)
class LinkedCode:
    """Code of an image.

    Attributes:
        code: Memory image; position-independent from any address that is a multiple of 4096.
        symbols: Exported function -> byte offset of its entry in ``code``.
        shared_object: The file that the linker wrote, symbols included, for debuggers.
    """

    code: bytes
    symbols: dict[str, int]
    shared_object: bytes


def link(
    objects: Sequence[bytes],
    target: Target,
    kernels: Collection[str] = (),
    toolchain: Toolchain | None = None,
) -> LinkedCode:
    """Link object files into one memory image of code and constants.

    Args:
        objects: Relocatable ELF files for ``target``.
        target: Chip the objects are for.
        kernels: Functions that the result must export.
        toolchain: What to link with; found on this machine if not given.

    Raises:
        ToolError: There is no toolchain, it fails, a function is missing, or the code needs a loader:
            undefined symbols, relocations or writable data.
    """
    tools = toolchain or find_toolchain(target)
    support = _support_object(tools)
    with tempfile.TemporaryDirectory(prefix="tvm_ipu-") as name:
        folder = Path(name)
        files = [f"{i}.o" for i in range(len(objects))]
        for file, data in zip(files, objects, strict=True):
            (folder / file).write_bytes(data)
        linked = folder / "kernels.so"
        inputs = folder / "inputs"  # there may be more files than a command line holds
        inputs.write_text("\n".join(files))
        options = [*_LINKER_FLAGS, "-T", str(_LAYOUT), "-o", linked.name]
        run_tool([*tools.linker, *options, "@inputs", str(support)], cwd=folder)
        shared_object = linked.read_bytes()
    return _flatten(shared_object, kernels)


def _support_object(tools: Toolchain) -> Path:
    """``support.c`` compiled, from the cache if the same compiler did it before.

    Raises:
        ToolError: The compiler fails or the cache folder cannot be written.
    """
    digest = hashlib.sha256(_SUPPORT_SOURCE.read_bytes())
    facts = tools.program.stat()
    for part in (*tools.compiler, *_COMPILER_FLAGS, facts.st_size, facts.st_mtime_ns):
        digest.update(f"\0{part}".encode())
    path = cache_dir() / f"support-{digest.hexdigest()[:24]}.o"
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix="support-") as folder:
                made = Path(folder) / "support.o"
                run_tool([*tools.compiler, *_COMPILER_FLAGS, "-c", str(_SUPPORT_SOURCE), "-o", str(made)])
                made.replace(path)
        except OSError as err:
            raise ToolError(f"cannot write to {path.parent}: {err.strerror or err}") from err
    return path


def _flatten(shared_object: bytes, kernels: Collection[str]) -> LinkedCode:
    """The memory image of the shared object's code, after checks that no loader is needed."""
    elf = ElfFile(shared_object)
    _check_complete(elf, kernels)
    _check_self_contained(elf)
    code = bytearray()
    for section in elf.sections:
        if section.name in _CODE_SECTIONS:
            code += bytes(section.address - len(code)) + section.data
    functions = {
        symbol.name: symbol.value
        for symbol in elf.symbols()
        if symbol.binding == STB_GLOBAL and elf.sections[symbol.section].name == ".text"
    }
    return LinkedCode(bytes(code), functions, shared_object)


def _check_complete(elf: ElfFile, kernels: Collection[str]) -> None:
    """Every function that is called or asked for is there."""
    symbols = elf.symbols()
    undefined = sorted(s.name for s in symbols if s.section == SHN_UNDEF)
    if undefined:
        raise ToolError(
            f"generated code calls functions that an image does not have: {', '.join(undefined)}",
            _REPORT,
        )
    missing = sorted(set(kernels) - {s.name for s in symbols})
    if missing:
        raise ToolError(f"the linked code lacks the kernels {', '.join(missing)}")


def _check_self_contained(elf: ElfFile) -> None:
    """Nothing has to be patched when the code is loaded, and nothing is written."""
    for relocation in elf.dynamic_relocations():
        of = f" of '{relocation.symbol}'" if relocation.symbol else ""
        where = f"{relocation.name}{of} at offset {relocation.address:#x}"
        raise ToolError(f"generated code is not position-independent: {where}", _REPORT)
    for index, section in enumerate(elf.sections):
        if not section.flags & SHF_ALLOC or section.size == 0 or section.name in _LOADER_SECTIONS:
            continue
        if section.name not in _CODE_SECTIONS:
            names = [s.name for s in elf.symbols(SHT_SYMTAB) if s.section == index and s.name]
            owner = f": '{names[0]}'" if names else ""
            raise ToolError(f"generated code has data outside its constants{owner}", _REPORT)
