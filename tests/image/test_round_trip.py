"""The writer's file, read back, is what was written; the generated files are fresh."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.image.image_kit import chain_program, host_target, sample_program
from tvm_ipu.base.errors import ImageError
from tvm_ipu.base.program import Arg, Call, Plan, Program, Space
from tvm_ipu.base.tensor import DType, TensorSpec, numpy_dtype
from tvm_ipu.image import generate, schema
from tvm_ipu.image.reader import read_image
from tvm_ipu.image.writer import write_image


def test_sample_program_round_trip(tmp_path: Path) -> None:
    program = sample_program(requires=("fma", "avx2"), features=("+fma",), cpu="znver4")
    path = tmp_path / "sample.img"
    write_image(program, path)
    info = read_image(path, verify_weights=True)
    assert info.plans == program.plans
    assert info.symbols == program.symbols
    assert info.metadata == program.metadata
    assert info.version == (1, 0)
    assert info.file_size == path.stat().st_size
    for name in ("name", "arch", "triple", "cpu", "features", "requires", "numerics", "pointer_bits"):
        assert getattr(info.target, name) == getattr(program.target, name)
    data = path.read_bytes()
    for section in info.sections:
        assert section.verified
        assert zlib.crc32(data[section.offset : section.offset + section.size]) == section.crc32
    code = next(s for s in info.sections if s.name == "code")
    assert data[code.offset : code.offset + code.size] == program.code
    assert code.offset % 4096 == 0
    assert info.section_size("weights") == len(program.weights)
    assert [p.name for p in tmp_path.iterdir()] == ["sample.img"]


def test_weights_are_read_on_request_only(tmp_path: Path) -> None:
    path = tmp_path / "sample.img"
    write_image(sample_program(), path)
    weights = next(s for s in read_image(path).sections if s.name == "weights")
    assert not weights.verified
    data = bytearray(path.read_bytes())
    data[weights.offset + 5] ^= 1
    path.write_bytes(data)
    read_image(path)
    with pytest.raises(ImageError, match="checksum of section weights is wrong"):
        read_image(path, verify_weights=True)


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Any program that keeps the rules of the format."""
    symbols = draw(st.dictionaries(NAMES, st.integers(0, 99), min_size=1, max_size=4))
    weights, consts = bytes(draw(st.integers(0, 300))), bytes(draw(st.integers(0, 300)))
    plans = []
    for _ in range(draw(st.integers(1, 3))):
        shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
        specs = st.builds(TensorSpec, NAMES, shapes, st.sampled_from(DType))
        inputs, outputs = draw(st.lists(specs, max_size=2)), draw(st.lists(specs, max_size=2))
        offsets, end = [], 0
        for spec in inputs + outputs:
            offsets.append(end)
            end += -(-spec.nbytes // 64) * 64
        sizes = {
            **{(Space.INPUT, i): spec.nbytes for i, spec in enumerate(inputs)},
            **{(Space.OUTPUT, i): spec.nbytes for i, spec in enumerate(outputs)},
            (Space.ARENA, 0): end,
            (Space.WEIGHTS, 0): len(weights),
            (Space.CONSTS, 0): len(consts),
        }
        calls = []
        for _ in range(draw(st.integers(0, 3))):
            args = []
            for space, index in draw(st.lists(st.sampled_from(sorted(sizes)), max_size=3)):
                begin = draw(st.integers(0, sizes[space, index]))
                args.append(Arg(space, index, begin, draw(st.integers(0, sizes[space, index] - begin))))
            extent = draw(st.integers(0, 2**31 - 1))
            calls.append(
                Call(
                    kernel=draw(st.sampled_from(sorted(symbols))),
                    args=tuple(args),
                    extent=extent,
                    grain=draw(st.integers(1, max(1, extent))),
                    layer=draw(NAMES),
                    op=draw(NAMES),
                    template=draw(NAMES),
                    flops=draw(st.integers(0, 2**64 - 1)),
                    bytes=draw(st.integers(0, 2**64 - 1)),
                )
            )
        plans.append(
            Plan(
                inputs=tuple(inputs),
                outputs=tuple(outputs),
                input_offsets=tuple(offsets[: len(inputs)]),
                output_offsets=tuple(offsets[len(inputs) :]),
                calls=tuple(calls),
                arena_size=end,
                scratch_size=draw(st.integers(0, 2**40)),
                tensor_bytes=draw(st.integers(0, 2**40)),
            )
        )
    metadata = draw(st.dictionaries(NAMES, st.one_of(st.none(), st.integers(), NAMES), max_size=3))
    return Program(host_target(), tuple(plans), bytes(100), symbols, weights, consts, metadata)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs())
def test_any_program_round_trip(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "any.img"
    write_image(program, path)
    info = read_image(path, verify_weights=True)
    assert (info.plans, info.symbols, info.metadata) == (program.plans, program.symbols, program.metadata)


def _with_call(program: Program, **changes: object) -> Program:
    plan = program.plans[0]
    calls = (dataclasses.replace(plan.calls[0], **changes), *plan.calls[1:])
    return dataclasses.replace(program, plans=(dataclasses.replace(plan, calls=calls),))


def _with_plan(program: Program, **changes: object) -> Program:
    return dataclasses.replace(program, plans=(dataclasses.replace(program.plans[0], **changes),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: _with_call(p, kernel="missing"), "layer '/add': kernel 'missing' has no code"),
        (lambda p: _with_call(p, extent=-1), "extent -1"),
        (lambda p: _with_call(p, grain=0), "grain 0"),
        (lambda p: _with_call(p, args=(Arg(Space.INPUT, 1, 0, 4),)), "input 1 does not exist"),
        (lambda p: _with_call(p, args=(Arg(Space.ARENA, 1, 0, 4),)), "arena 1 does not exist"),
        (
            lambda p: _with_call(p, args=(Arg(Space.INPUT, 0, 0, 65),)),
            "input 0 has 64 bytes; the call uses",
        ),
        (lambda p: _with_call(p, args=(Arg(Space.WEIGHTS, 0, 64, 1),)), "weights 0 has 64 bytes"),
        (lambda p: _with_call(p, layer="a\0b"), "holds a zero byte"),
        (lambda p: _with_plan(p, input_offsets=(32,)), "tensor 'x' of 64 bytes cannot lie at 32"),
        (lambda p: _with_plan(p, output_offsets=(1 << 20,)), "tensor 'y' of 64 bytes cannot lie at 1048576"),
        (lambda p: _with_plan(p, input_offsets=()), "does not fit the image format"),
        (lambda p: _with_plan(p, scratch_size=-1), "does not fit the image format"),
        (lambda p: dataclasses.replace(p, plans=()), "at least one plan"),
        (
            lambda p: dataclasses.replace(p, symbols={"add": 1 << 20}),
            "kernel 'add' starts at 1048576",
        ),
        (lambda p: dataclasses.replace(p, metadata={"x": object()}), "not JSON serializable"),
    ],
)
def test_writer_refuses_a_program_that_breaks_a_rule(change, message: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=message):
        write_image(change(chain_program(3, 16)), tmp_path / "bad.img")
    assert not list(tmp_path.iterdir())


def test_record_rejects_what_does_not_fit() -> None:
    with pytest.raises(KeyError):
        schema.DIM.pack(size=1)
    with pytest.raises(struct.error):
        schema.ARG.pack(space=-1)


def test_every_record_is_naturally_aligned() -> None:
    sizes = {"u16": 2, "u32": 4, "i32": 4, "u64": 8, "i64": 8}
    for record in schema.RECORDS:
        assert record.size % 8 == 0
        for field in record.fields:
            assert record.offset_of(field.name) % sizes[field.ctype] == 0


def test_generated_files_are_fresh() -> None:
    assert generate.main(["--check"]) == 0


def test_stale_files_are_found_and_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header, doc = tmp_path / "ipu_format.h", tmp_path / "image-format.md"
    doc.write_text(generate.DOC_PATH.read_text().replace("| 0 | u64 | `magic` |", "| 1 | u64 | `magic` |"))
    monkeypatch.setattr(generate, "HEADER_PATH", header)
    monkeypatch.setattr(generate, "DOC_PATH", doc)
    assert generate.main(["--check"]) == 1
    assert not header.exists()
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert "| 0 | u64 | `magic` |" in doc.read_text()


def test_numpy_and_format_agree_on_element_sizes() -> None:
    for dtype in DType:
        assert numpy_dtype(dtype.label).itemsize == dtype.itemsize
