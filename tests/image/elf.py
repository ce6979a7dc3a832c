"""Just enough ELF to turn a small shared object into the flat code of an image."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_LOADABLE, _DYNAMIC_SYMBOLS, _FUNCTION = 1, 11, 2


@dataclass(frozen=True)
class _Layout:
    """Where the fields lie in one class of ELF: formats, and which of their values are of interest."""

    tables: tuple[str, int]
    sizes: int
    segment: tuple[str, tuple[int, ...]]
    section: str
    symbol: tuple[str, tuple[int, ...]]


_LAYOUTS = {
    1: _Layout(("<II", 28), 42, ("<8I", (0, 1, 2, 4, 5)), "<10I", ("<IIIBBH", (0, 1, 3, 5))),
    2: _Layout(("<QQ", 32), 54, ("<IIQQQQQQ", (0, 2, 3, 5, 6)), "<IIQQQQIIQQ", ("<IBBHQQ", (0, 4, 1, 3))),
}


def flatten(elf: bytes) -> tuple[bytes, dict[str, int]]:
    """Loadable segments of a little-endian shared object at their addresses, and its exported functions."""
    layout = _LAYOUTS[elf[4]]
    segment_table, section_table = struct.unpack_from(layout.tables[0], elf, layout.tables[1])
    segment_size, segment_count, section_size, section_count = struct.unpack_from("<4H", elf, layout.sizes)
    memory = bytearray()
    for at in range(segment_table, segment_table + segment_count * segment_size, segment_size):
        values = struct.unpack_from(layout.segment[0], elf, at)
        kind, offset, address, file_size, memory_size = (values[i] for i in layout.segment[1])
        if kind == _LOADABLE:
            memory.extend(bytes(max(0, address + memory_size - len(memory))))
            memory[address : address + file_size] = elf[offset : offset + file_size]
    starts = range(section_table, section_table + section_count * section_size, section_size)
    sections = [struct.unpack_from(layout.section, elf, at) for at in starts]
    symbols = {}
    for _, kind, _, _, offset, size, link, *_ in sections:
        if kind == _DYNAMIC_SYMBOLS:
            names = elf[sections[link][4] :]
            for entry in struct.iter_unpack(layout.symbol[0], elf[offset : offset + size]):
                name, value, info, section = (entry[i] for i in layout.symbol[1])
                if info & 15 == _FUNCTION and section:
                    symbols[names[name : names.index(b"\0", name)].decode()] = value
    return bytes(memory), symbols
