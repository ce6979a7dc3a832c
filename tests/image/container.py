"""Take images apart and put them together again, to make files that the writer would not."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from tvm_ipu.image import schema


@dataclass
class Part:
    """One section: its table entry, its bytes, and what the table shall say instead of the truth."""

    entry: dict[str, int]
    data: bytearray
    lies: dict[str, int] = field(default_factory=dict)

    def set(self, record: schema.Record, index: int, /, **values: int) -> None:
        """Change fields of record ``index``."""
        at = index * self.entry["record_size"]
        self.data[at : at + record.size] = record.pack(**(record.unpack(bytes(self.data), at) | values))


class Container:
    """An image in parts: change ``header`` and the parts, then ``dump``."""

    def __init__(self, image: bytes) -> None:
        self.header = schema.HEADER.unpack(image)
        self.parts: list[Part] = []
        for i in range(self.header["section_count"]):
            entry = schema.SECTION.unpack(image, self.header["table_offset"] + i * schema.SECTION.size)
            data = bytearray(image[entry["offset"] : entry["offset"] + entry["size"]])
            self.parts.append(Part(entry, data))

    def __getitem__(self, name: str) -> Part:
        return next(p for p in self.parts if p.entry["type"] == schema.SectionType[name.upper()])

    def add(self, kind: int, data: bytes, flags: int = 0) -> None:
        """Append a section."""
        self.parts.append(Part({"type": kind, "flags": flags, "record_size": 0}, bytearray(data)))

    def dump(self, **lies: int) -> bytes:
        """The file, laid out anew, with right checksums; ``lies`` replace fields of the header."""
        body = bytearray(schema.HEADER.size + schema.SECTION.size * len(self.parts))
        table = bytearray()
        for part in self.parts:
            body += bytes(-len(body) % schema.PAGE_ALIGNMENT)
            part.entry |= {"offset": len(body), "size": len(part.data), "crc32": zlib.crc32(part.data)}
            table += schema.SECTION.pack(**(part.entry | part.lies))
            body += part.data
        facts = {"file_size": len(body), "section_count": len(self.parts), "table_offset": schema.HEADER.size}
        header = schema.HEADER.pack(**(self.header | facts | lies))[: schema.HEADER.offset_of("crc32")]
        header += struct.pack("<I", zlib.crc32(bytes(table), zlib.crc32(header)))
        body[: schema.HEADER.size + len(table)] = header + table
        return bytes(body)
