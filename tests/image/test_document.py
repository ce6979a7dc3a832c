"""docs/image-format.md is enough to read an image: a parser made of its tables finds all that was written."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.image.image_kit import elementwise_program, sample_program
from tvm_ipu.base.program import Program
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.image.writer import write_image

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "image-format.md"
Row = dict[str, str]
Values = dict[str, int]


def tables() -> dict[str, list[Row]]:
    """The document's tables by the name of their block; a row maps the titles of the columns to cells."""
    found = {}
    blocks = re.findall(r"<!-- generated: (\w+) -->\n(.*?)\n<!-- end", DOCUMENT.read_text(), re.DOTALL)
    for name, block in blocks:
        rows = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("|")]
        cells = [[cell.strip("` ") for cell in row] for row in rows]
        found[name] = [dict(zip(cells[0], row, strict=False)) for row in cells[2:]]
    return found


TABLES = tables()


def record_size(name: str) -> int:
    """Bytes of a record as the text above its table says."""
    block = DOCUMENT.read_text().partition(f"<!-- generated: {name} -->")[2]
    found = re.match(r"\n.* (\d+) bytes\.\n", block)
    assert found, name
    return int(found[1])


def read_record(name: str, data: bytes) -> Values:
    """The fields of one record; reserved ones are zero."""
    values = {}
    for row in TABLES[name]:
        begin, bits = int(row["offset"]), int(row["type"][1:])
        field = data[begin : begin + bits // 8]
        assert len(field) == bits // 8
        values[row["field"]] = int.from_bytes(field, "little", signed=row["type"][0] == "i")
    assert not any(value for field, value in values.items() if field.startswith("reserved"))
    return values


def by_number(table: str, title: str) -> dict[int, str]:
    return {int(row["value"]): row[title] for row in TABLES[table]}


@dataclass
class Image:
    """An image taken apart, and how many of its bytes the document accounts for."""

    header: Values
    sections: dict[str, bytes]
    entries: dict[str, Values]
    covered: int

    def records(self, section: str, record: str = "") -> list[Values]:
        """The records of a section, by the stride that the section table gives."""
        stride, data = self.entries[section]["record_size"], self.sections[section]
        assert stride == record_size(record or section.rstrip("s"))
        return [read_record(record or section.rstrip("s"), data[i:]) for i in range(0, len(data), stride)]

    def string(self, offset: int) -> str:
        return self.sections["strings"][offset:].split(b"\0")[0].decode()


def parse(data: bytes) -> Image:
    """Take an image apart, with every check that does not need the tables inside the sections."""
    magic = bytes.fromhex(TABLES["header"][0]["meaning"])
    assert data.startswith(magic)
    header = read_record("header", data)
    assert (header["version_major"], header["version_minor"], header["kind"]) == (1, 0, 1)
    assert header["file_size"] == len(data)
    assert header["table_offset"] % 8 == header["incompatible_flags"] == 0
    size, begin = record_size("section"), header["table_offset"]
    end = begin + header["section_count"] * size
    before_crc = data[: next(int(row["offset"]) for row in TABLES["header"] if row["field"] == "crc32")]
    assert header["crc32"] == zlib.crc32(before_crc + data[begin:end])
    image = Image(header, {}, {}, covered=record_size("header") + end - begin)
    kinds = {int(row["type"]): row for row in TABLES["sections"]}
    for at in range(begin, end, size):
        entry = read_record("section", data[at:])
        kind = kinds[entry["type"]]
        start, stop = entry["offset"], entry["offset"] + entry["size"]
        assert start % int(kind["alignment"]) == 0
        assert start >= end
        assert entry["flags"] == (kind["required"] == "yes")
        assert not any(data[end:start]), "padding is zero"
        assert entry["crc32"] == zlib.crc32(data[start:stop])
        image.sections[kind["section"]] = data[start:stop]
        image.entries[kind["section"]] = entry
        image.covered += stop - end
        end = stop
    assert {row["section"] for row in kinds.values() if row["required"] == "yes"} <= set(image.sections)
    return image


def check_tensors(image: Image, begin: int, specs: tuple[TensorSpec, ...], offsets: tuple[int, ...]) -> None:
    """The tensors from ``begin`` on are ``specs``."""
    names, sizes = by_number("dtypes", "element type"), by_number("dtypes", "bytes")
    rows = image.records("tensors")[begin : begin + len(specs)]
    extents = [row["extent"] for row in image.records("dims")]
    for row, spec, offset in zip(rows, specs, offsets, strict=True):
        shape = extents[row["dims_begin"] : row["dims_begin"] + row["rank"]]
        assert (image.string(row["name"]), names[row["dtype"]]) == (spec.name, spec.dtype.label)
        assert tuple(shape) == spec.shape
        elements = 1
        for extent in shape:
            elements *= extent
        assert row["nbytes"] == elements * int(sizes[row["dtype"]])
        assert (row["arena_offset"], image.string(row["format"])) == (offset, spec.format)
        assert row["zero"] == spec.zero
        assert row["scale"] == {0.0: 0, 0.5: 0x3F000000}[spec.scale]


def check_calls(image: Image, plan: Values, program: Program, index: int) -> None:
    """The calls of a plan, with their kernels and arguments."""
    spaces = by_number("spaces", "space")
    args, kernels = image.records("args"), image.records("kernels")
    rows = image.records("calls")[plan["call_begin"] : plan["call_begin"] + plan["call_count"]]
    for row, call in zip(rows, program.plans[index].calls, strict=True):
        kernel = kernels[row["kernel"]]
        assert image.string(kernel["name"]) == call.kernel
        assert kernel["offset"] == program.symbols[call.kernel]
        texts = [image.string(row[field]) for field in ("layer", "op", "template")]
        assert texts == [call.layer, call.op, call.template]
        numbers = [row[field] for field in ("extent", "grain", "flops", "bytes")]
        assert numbers == [call.extent, max(1, call.grain), call.flops, call.bytes]
        found = [
            (spaces[arg["space"]], arg["index"], arg["offset"], arg["size"])
            for arg in args[row["arg_begin"] : row["arg_begin"] + row["arg_count"]]
        ]
        assert found == [(a.space.name.lower(), a.index, a.offset, a.size) for a in call.args]


def quantised_program() -> Program:
    """One whose tensors use every field: a format, a scale and a zero point."""
    program = elementwise_program("copy16", DType.INT16, (1, 2, 3))
    plan = program.plans[0]
    inputs = (replace(plan.inputs[0], format="RAWDATA_S16_NHWC", scale=0.5, zero=-7),)
    return replace(program, plans=(replace(plan, inputs=inputs),))


def two_plans() -> Program:
    """The sample for a processor with features."""
    return sample_program(requires=("fma", "avx2"), features=("+fma",), cpu="znver4")


def empty_tensor() -> Program:
    """One without elements, of a type that numpy lacks."""
    return elementwise_program("copy16", DType.BFLOAT16, (2, 0, 4))


@pytest.mark.parametrize("make", [two_plans, empty_tensor, quantised_program])
def test_a_parser_made_of_the_document_finds_what_was_written(
    make: Callable[[], Program], tmp_path: Path
) -> None:
    program, path = make(), tmp_path / "a.img"
    write_image(program, path)
    data = path.read_bytes()
    image = parse(data)
    assert image.covered == len(data), "every byte is described"
    assert image.sections["code"] == program.code
    assert image.sections["weights"] == program.weights
    assert image.sections["consts"] == program.consts
    assert json.loads(image.sections["metadata"]) == program.metadata
    (target,) = image.records("target")
    for field in ("name", "arch", "triple", "cpu", "numerics"):
        assert image.string(target[field]) == getattr(program.target, field)
    for field in ("features", "requires"):
        assert image.string(target[field]) == ",".join(getattr(program.target, field))
    assert target["pointer_bits"] == program.target.pointer_bits
    rows = image.records("plans")
    assert len(rows) == len(program.plans)
    for index, (row, plan) in enumerate(zip(rows, program.plans, strict=True)):
        for field in ("arena_size", "scratch_size", "tensor_bytes"):
            assert row[field] == getattr(plan, field)
        counts = row["input_count"], row["output_count"], row["call_count"]
        assert counts == (len(plan.inputs), len(plan.outputs), len(plan.calls))
        check_tensors(image, row["input_begin"], plan.inputs, plan.input_offsets)
        check_tensors(image, row["output_begin"], plan.outputs, plan.output_offsets)
        check_calls(image, row, program, index)


def test_element_types_have_the_sizes_of_the_document() -> None:
    documented = {row["element type"]: int(row["bytes"]) for row in TABLES["dtypes"]}
    assert documented == {dtype.label: dtype.itemsize for dtype in DType}
