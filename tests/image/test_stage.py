"""Float and fixed stages on disk: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.image.container import Container
from tests.image.image_kit import sample_program
from tvm_ipu.base.contract import Contract, ConvConfig, InputContract, OutputContract
from tvm_ipu.base.errors import ImageError
from tvm_ipu.base.ranges import RangeTable, TensorRange
from tvm_ipu.image import stage as stages
from tvm_ipu.image.reader import read_image
from tvm_ipu.image.schema import Kind
from tvm_ipu.image.stage import FIXED, FLOAT, Stage, read_stage, stage_kind, write_stage
from tvm_ipu.image.writer import write_image

CONTRACT = Contract(
    (InputContract("x", "RGB", "YUV_NV12", True, (1.5, 2.0, 3.0), (255.0,), 2, 2, "NCHW"),),
    (OutputContract("y", False, "RAWDATA_S16_NHWC"),),
    ConvConfig("", ("a", "b")),
)
WEIGHT = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / 7


def sample(kind: str = FIXED) -> Stage:
    ranges = RangeTable(
        {
            "x": TensorRange("x", (-1.5,), (2.25,)),
            "w": TensorRange("w", (-1.0, 0.1), (1.0, 0.3), 4, WEIGHT),
            "v": TensorRange("v", (0.0,), (1.0,), 16, WEIGHT.astype(np.float16)[:1]),
        },
        {"level": "L5"},
    )
    return Stage(
        kind, b"an ONNX model" * 9, CONTRACT, "ipu-ref", ranges, {"file": "größe.onnx", "opsets": [1, 2]}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "net.sim"
    write_stage(sample(), path)
    return path


def same(found: Stage, expected: Stage) -> bool:
    """Whether two stages agree, arrays included."""
    for one, other in zip(found.ranges.ranges.values(), expected.ranges.ranges.values(), strict=True):
        if (one.data is None) != (other.data is None) or (one.low, one.high) != (other.low, other.high):
            return False
        if one.data is not None and other.data is not None:
            np.testing.assert_array_equal(one.data, other.data, strict=True)
    facts = [(s.kind, s.model, s.contract, s.target, s.metadata, s.ranges.facts) for s in (found, expected)]
    bits = [[(r.name, r.bits) for r in s.ranges.ranges.values()] for s in (found, expected)]
    return facts[0] == facts[1] and bits[0] == bits[1]


@pytest.mark.parametrize("kind", [FLOAT, FIXED])
def test_round_trip(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "net.sim"
    write_stage(sample(kind), path)
    assert same(read_stage(path), sample(kind))
    assert same(read_stage(path, kind), sample(kind))
    assert stage_kind(path) == kind


def test_empty_parts(tmp_path: Path) -> None:
    path = tmp_path / "net.sim"
    write_stage(Stage(FLOAT, b"m"), path)
    assert read_stage(path) == Stage(FLOAT, b"m")


def contract(**changes: object) -> bytes:
    """The contract of one input, changed."""
    fed = {"name": "x", "training_format": "RGB", "input_format": "RGB", **changes}
    return json.dumps({"inputs": [fed], "outputs": [], "conv": {}}).encode()


def ranges(**changes: object) -> bytes:
    """The range of one tensor, changed."""
    one = {"name": "x", "low": [0], "high": [1], "bits": 8, **changes}
    return json.dumps({"ranges": [one], "facts": {}}).encode()


def test_every_truncation(path: Path, tmp_path: Path) -> None:
    whole, short = path.read_bytes(), tmp_path / "short.sim"
    for size in range(len(whole)):
        short.write_bytes(whole[:size])
        with pytest.raises(ImageError, match=r"short\.sim"):
            read_stage(short)


def test_every_flipped_byte(path: Path, tmp_path: Path) -> None:
    """It is seen, or it lies in the padding between sections, which means nothing."""
    whole, bad = path.read_bytes(), tmp_path / "bad.sim"
    file = stages.read_container(path, "a stage", tuple(Kind), stages.schema.STAGE_SECTIONS)
    used = {i for s in file.sections for i in range(s.offset, s.offset + s.size)}
    table = stages.schema.HEADER.size + stages.schema.SECTION.size * len(file.sections)
    for at in range(len(whole)):
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        if at < table or at in used:
            with pytest.raises(ImageError, match=r"bad\.sim"):
                read_stage(bad)
        else:
            assert same(read_stage(bad), sample())


@pytest.mark.parametrize(
    ("section", "content", "message"),
    [
        ("contract", b"{}", "section contract is not understood"),
        ("contract", b"\xff", "section contract is not understood"),
        ("contract", b'{"inputs": [{"x": 1}], "outputs": [], "conv": {}}', "section contract"),
        ("contract", b"[" * 100_000, "nested too deep"),
        ("contract", contract(mean=[{}]), r"'mean' is \[{}\]"),
        ("contract", contract(input_format="XYZ"), "'x': 'XYZ' is not among"),
        ("contract", contract(mean=[1, 2]), "'x': 2 is not among"),
        ("contract", contract(width_alignment=0), "an alignment is below 1"),
        ("metadata", b"[]", "section metadata is not understood"),
        ("ranges", b'{"ranges": [{"name": "x"}], "facts": {}}', "section ranges is not understood"),
        (
            "ranges",
            json.dumps({"ranges": [{"name": "x", "low": [0], "high": [1], "bits": 7}], "facts": {}}).encode(),
            "'x' has 7 bits",
        ),
        ("ranges", ranges(low="a"), "'low' is 'a'"),
        ("ranges", ranges(low=[0, 1]), "'x' has 2 least and 1 largest numbers"),
        ("ranges", ranges(data={"dtype": "O", "shape": [1], "offset": 0}), r"an array of object\[1\]"),
        ("ranges", ranges(data={"dtype": "f4", "shape": [2**62, 8], "offset": 0}), "section ranges"),
    ],
)
def test_right_checksum_wrong_content(
    path: Path, tmp_path: Path, section: str, content: bytes, message: str
) -> None:
    container = Container(path.read_bytes())
    container[section].data = bytearray(content)
    bad = tmp_path / "bad.sim"
    bad.write_bytes(container.dump())
    with pytest.raises(ImageError, match=message):
        read_stage(bad)


def test_data_outside_their_section(path: Path, tmp_path: Path) -> None:
    container = Container(path.read_bytes())
    container["range_data"].data = container["range_data"].data[:8]
    bad = tmp_path / "bad.sim"
    bad.write_bytes(container.dump())
    with pytest.raises(ImageError, match="section ranges is not understood"):
        read_stage(bad)


def test_other_kinds(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a fixed stage, not a float stage") as caught:
        read_stage(path, FLOAT)
    assert "tvm-ipu convert" in caught.value.hint
    with pytest.raises(ImageError, match="is a fixed stage, not an offline image"):
        read_image(path)
    image = tmp_path / "x.img"
    write_image(sample_program(), image)
    assert stage_kind(image) is None
    with pytest.raises(ImageError, match="is an offline image, not a stage"):
        read_stage(image)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x.sim"
    with pytest.raises(ImageError, match=r"x\.sim: cannot read the stage: No such file"):
        read_stage(path)
    path.write_bytes(b"\x08\x07onnx" * 50)
    with pytest.raises(ImageError, match="not a fixed stage") as caught:
        read_stage(path, FIXED)
    assert "tvm-ipu calibrate" in caught.value.hint
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="too short for a stage"):
        read_stage(path)
    with pytest.raises(ImageError, match="not a regular file"):
        read_stage(tmp_path)


def test_newer_version(path: Path, tmp_path: Path) -> None:
    container = Container(path.read_bytes())
    container.header["version_minor"] = 9
    container.add(99, b"from the future")
    newer = tmp_path / "newer.sim"
    newer.write_bytes(container.dump())
    assert same(read_stage(newer), sample())
    container.header["version_major"] = 2
    newer.write_bytes(container.dump())
    with pytest.raises(ImageError, match=r"format 2\.9, but this"):
        read_stage(newer)


def test_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_stage(sample(FLOAT), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_values_that_json_lacks(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="JSON cannot express"):
        write_stage(Stage(FLOAT, b"", metadata={"x": object()}), tmp_path / "x.sim")
    assert list(tmp_path.iterdir()) == []
