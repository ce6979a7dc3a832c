"""Read what the linker wrote: sections, symbols and relocations of a little-endian ELF file."""

from __future__ import annotations

import struct
from dataclasses import dataclass

SHT_SYMTAB, SHT_RELA, SHT_NOBITS, SHT_REL, SHT_DYNSYM, SHT_RELR = 2, 4, 8, 9, 11, 19
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
STB_GLOBAL, STB_WEAK = 1, 2
SHN_UNDEF = 0

_RELOCATION_NAMES = {
    40: {2: "R_ARM_ABS32", 21: "R_ARM_GLOB_DAT", 22: "R_ARM_JUMP_SLOT", 23: "R_ARM_RELATIVE"},
    62: {1: "R_X86_64_64", 6: "R_X86_64_GLOB_DAT", 7: "R_X86_64_JUMP_SLOT", 8: "R_X86_64_RELATIVE"},
    164: {6: "R_HEX_32", 33: "R_HEX_GLOB_DAT", 34: "R_HEX_JMP_SLOT", 35: "R_HEX_RELATIVE"},
    183: {
        257: "R_AARCH64_ABS64",
        1025: "R_AARCH64_GLOB_DAT",
        1026: "R_AARCH64_JUMP_SLOT",
        1027: "R_AARCH64_RELATIVE",
    },
    243: {2: "R_RISCV_64", 3: "R_RISCV_RELATIVE", 5: "R_RISCV_JUMP_SLOT"},
}
"""By ELF machine: names of the relocations that code which needs a loader leads to."""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        kind: Its type, ``SHT_...``.
        flags: ``SHF_...`` bits.
        address: Where it lies in memory, from the start of the object.
        data: Its bytes; empty for ``SHT_NOBITS``.
        size: Bytes in memory.
        link: Index of the section that it refers to.
    """

    name: str
    kind: int
    flags: int
    address: int
    data: bytes
    size: int
    link: int


@dataclass(frozen=True)
class Symbol:
    """One symbol; ``section`` is ``SHN_UNDEF`` where the object lacks it."""

    name: str
    value: int
    size: int
    binding: int
    section: int


@dataclass(frozen=True)
class Relocation:
    """One relocation that a loader would have to apply at ``address``."""

    address: int
    name: str
    symbol: str


class ElfFile:
    """A little-endian ELF file of 32 or 64 bits.

    Args:
        data: The file.

    Raises:
        ValueError: It is not such a file.
    """

    def __init__(self, data: bytes) -> None:
        if data[:4] != b"\x7fELF" or len(data) < 52 or data[4] not in (1, 2) or data[5] != 1:
            raise ValueError("not a little-endian ELF file")
        self._wide = data[4] == 2
        self.machine = int(struct.unpack_from("<H", data, 18)[0])
        self.sections = self._read_sections(data)

    def _read_sections(self, data: bytes) -> list[Section]:
        layout = "<2I4Q2I2Q" if self._wide else "<10I"
        (table,) = struct.unpack_from("<Q", data, 40) if self._wide else struct.unpack_from("<I", data, 32)
        step, count, names_index = struct.unpack_from("<3H", data, 58 if self._wide else 46)
        headers = [struct.unpack_from(layout, data, table + i * step) for i in range(count)]
        names = headers[names_index][4] if headers else 0
        sections = []
        for name, kind, flags, address, offset, size, link, *_ in headers:
            content = b"" if kind == SHT_NOBITS else data[offset : offset + size]
            sections.append(Section(_text(data, names + name), kind, flags, address, content, size, link))
        return sections

    def section(self, name: str) -> Section | None:
        """The section called ``name``."""
        return next((s for s in self.sections if s.name == name), None)

    def symbols(self, kind: int = SHT_DYNSYM) -> list[Symbol]:
        """Symbols of the table of type ``kind``, the null symbol left out."""
        table = next((s for s in self.sections if s.kind == kind), None)
        if table is None:
            return []
        names = self.sections[table.link].data
        symbols = []
        for fields in struct.iter_unpack("<IBBHQQ" if self._wide else "<3IBBH", table.data):
            if self._wide:
                name, info, _, section, value, size = fields
            else:
                name, value, size, info, _, section = fields
            symbols.append(Symbol(_text(names, name), value, size, info >> 4, section))
        return symbols[1:]

    def dynamic_relocations(self) -> list[Relocation]:
        """Everything that a dynamic loader would have to patch."""
        found = []
        for section in self.sections:
            if not section.flags & SHF_ALLOC:
                continue
            if section.kind == SHT_RELR and section.size:
                found.append(Relocation(section.address, "RELR", ""))
            if section.kind in (SHT_REL, SHT_RELA):
                found += self._relocations(section)
        return found

    def _relocations(self, section: Section) -> list[Relocation]:
        symbols = self.symbols()
        layout = ("<2Q" if self._wide else "<2I") + ("q" if self._wide else "i") * (section.kind == SHT_RELA)
        shift, mask = (32, 0xFFFFFFFF) if self._wide else (8, 0xFF)
        known = _RELOCATION_NAMES.get(self.machine, {})
        found = []
        for address, info, *_ in struct.iter_unpack(layout, section.data):
            index, kind = info >> shift, info & mask
            symbol = symbols[index - 1].name if 0 < index <= len(symbols) else ""
            found.append(Relocation(address, known.get(kind, f"relocation type {kind}"), symbol))
        return found


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode("utf-8", "replace")
