"""Images that must not be loaded: newer, foreign, damaged, or inconsistent behind right checksums."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.image.container import Container
from tests.image.image_kit import host_target, sample_program, sample_result
from tvm_ipu.base.errors import ImageError, RunError
from tvm_ipu.image import schema
from tvm_ipu.image.reader import read_image
from tvm_ipu.image.writer import write_image
from tvm_ipu.runtime import Session

Change = Callable[[Container], None]


@pytest.fixture
def container(sample: Path) -> Container:
    return Container(sample.read_bytes())


def refuse(path: Path, message: str, hint: str = "", read: bool = True) -> None:
    """Both readers refuse ``path`` with ``message`` and the file's name."""
    readers: list[Callable[[Path], object]] = [Session, read_image] if read else [Session]
    for reader in readers:
        with pytest.raises(ImageError, match=message) as caught:
            reader(path)
        assert caught.value.message.startswith(str(path))
        assert hint in caught.value.hint


def test_container_helper_changes_nothing(container: Container, tmp_path: Path) -> None:
    path = tmp_path / "same.img"
    path.write_bytes(container.dump())
    assert read_image(path, verify_weights=True).plans == sample_program().plans


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version_major": 2}, r"image format 2\.0, but this"),
        ({"version_major": 0}, r"image format 0\.0, but this"),
        ({"version_minor": 3, "incompatible_flags": 4}, r"format 1\.3 uses a feature newer than 1\.0"),
        ({"kind": 2}, "is a float stage, not an offline image"),
        ({"kind": 3}, "is a fixed stage, not an offline image"),
        ({"kind": 9}, "is something newer, not an offline image"),
        ({"magic": 1}, "not an offline image"),
    ],
)
def test_header(container: Container, tmp_path: Path, change: dict[str, int], message: str) -> None:
    container.header.update(change)
    path = tmp_path / "new.img"
    path.write_bytes(container.dump())
    refuse(path, message)


def test_newer_minor_version_runs(container: Container, tmp_path: Path) -> None:
    """It may have sections that are not known here, and longer records."""
    container.header["version_minor"] = 9
    container.add(77, b"from the future")
    for name, record in (("kernels", schema.KERNEL), ("dims", schema.DIM), ("args", schema.ARG)):
        part, size = container[name], record.size
        rows = [bytes(part.data[at : at + size]) + b"\xff" * 8 for at in range(0, len(part.data), size)]
        part.data = bytearray(b"".join(rows))
        part.entry["record_size"] = size + 8
    path = tmp_path / "newer.img"
    path.write_bytes(container.dump())
    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    with Session(path) as session:
        np.testing.assert_allclose(session.run({"x": x})["y"], sample_result(x)["y"], rtol=1e-6)
    info = read_image(path)
    assert info.version == (1, 9)
    assert info.plans == sample_program().plans
    assert info.sections[-1].name == "type 77"


def test_required_section_of_a_newer_version(container: Container, tmp_path: Path) -> None:
    container.add(77, b"", flags=schema.SectionFlag.REQUIRED)
    path = tmp_path / "newer.img"
    path.write_bytes(container.dump())
    refuse(path, "needs section type 77 of a newer version", "update tvm_ipu")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"arch": "vax"}, r"made for target test-host \(vax, 64 bits\), but this machine is "),
        ({"pointer_bits": 16}, "16 bits"),
        ({"requires": ("no-such",)}, "CPU feature 'no-such', which this runtime does not know"),
        ({"requires": ("x" * 40,)}, "CPU feature 'x{31}'"),
    ],
)
def test_other_machine(tmp_path: Path, target: dict[str, object], message: str) -> None:
    path = tmp_path / "other.img"
    write_image(sample_program(40, **target), path)
    refuse(path, message, read=False)
    assert read_image(path).target.arch == host_target(**target).arch


@pytest.mark.skipif(host_target().arch != "x86_64", reason="the features below are x86's")
def test_missing_cpu_feature(tmp_path: Path) -> None:
    cpu_info = Path("/proc/cpuinfo").read_text().split()
    linux_names = {"amx-fp16": "amx_fp16", "avxifma": "avx_ifma", "avx512fp16": "avx512_fp16"}
    missing = [llvm for llvm, linux in linux_names.items() if linux not in cpu_info]
    assert missing, "this machine has them all: add newer ones to the test"
    path = tmp_path / "other.img"
    write_image(sample_program(40, requires=("sse2", missing[0])), path)
    refuse(
        path,
        f"needs the CPU feature '{missing[0]}', which this machine does not have",
        "--target host",
        False,
    )


@pytest.mark.skipif(host_target().arch != "x86_64", reason="the features below are x86's")
def test_present_cpu_features(tmp_path: Path) -> None:
    """Every feature that Linux reports under the same name is found by the runtime too."""
    same_names = {
        "avx",
        "avx2",
        "fma",
        "f16c",
        "bmi2",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "popcnt",
        "ssse3",
        "sse2",
    }
    flags = next(row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("flags"))
    present = tuple(sorted(same_names & set(flags.split())))
    assert present
    path = tmp_path / "host.img"
    write_image(sample_program(40, requires=present), path)
    Session(path).close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an offline image|too short"),
        (b"\x89IPU\r\n\x1a\n", "not an offline image|too short"),
        (b"\x08\x07\x12\x04onnx" * 100, "not an offline image"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.img"
    path.write_bytes(content)
    refuse(path, message)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refuse(tmp_path / "missing.img", "No such file or directory")
    refuse(tmp_path, "not a regular file")
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe", "not a regular file")


@pytest.mark.parametrize("kept", [64, 447, 5000, -1])
def test_truncated_file(sample: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "short.img"
    path.write_bytes(sample.read_bytes()[:kept])
    refuse(path, "bytes, but its header says", "damaged")


def test_longer_file(sample: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.img"
    path.write_bytes(sample.read_bytes() + b"\0")
    refuse(path, "bytes, but its header says", "damaged")


def _table_says(section: str, **values: int) -> Change:
    return lambda c: c[section].lies.update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_table_says("weights", offset=2**40), "leaves the file or overlaps"),
        (_table_says("weights", size=2**64 - 1), "leaves the file or overlaps"),
        (_table_says("weights", size=8001), "leaves the file or overlaps"),
        (_table_says("weights", offset=2**64 - 4096, size=8192), "leaves the file or overlaps"),
        (_table_says("strings", offset=64), "leaves the file or overlaps"),
        (_table_says("metadata", type=schema.SectionType.STRINGS), "section strings appears twice"),
        (_table_says("consts", type=99, flags=0), "section consts is missing"),
    ],
)
def test_section_table(container: Container, tmp_path: Path, change: Change, message: str) -> None:
    change(container)
    path = tmp_path / "bad.img"
    path.write_bytes(container.dump())
    refuse(path, message, "damaged")


@pytest.mark.parametrize(
    ("lies", "message"),
    [
        ({"table_offset": 2**63}, "section table leaves the file"),
        ({"table_offset": 2**64 - 8}, "section table leaves the file"),
        ({"section_count": 257}, "section table leaves the file"),
        ({"section_count": 2**32 - 1}, "section table leaves the file"),
        ({"section_count": 3}, "checksum of the header"),
        ({"file_size": 2**40}, "its header says"),
    ],
)
def test_header_that_lies(container: Container, tmp_path: Path, lies: dict[str, int], message: str) -> None:
    path = tmp_path / "bad.img"
    path.write_bytes(container.dump(**lies))
    refuse(path, message, "damaged")


@pytest.mark.parametrize(
    ("section", "lies", "message"),
    [
        ("kernels", {"record_size": 8}, "section kernels has records of 8 bytes"),
        ("kernels", {"record_size": 0}, "section kernels has records of 0 bytes"),
        ("kernels", {"record_size": 20}, "section kernels has records of 20 bytes"),
        ("args", {"record_size": 24 * 1024}, "section args has records of 24576 bytes"),
    ],
)
def test_record_size(
    container: Container, tmp_path: Path, section: str, lies: dict[str, int], message: str
) -> None:
    container[section].lies.update(lies)
    path = tmp_path / "bad.img"
    path.write_bytes(container.dump())
    refuse(path, message, "damaged", read=False)
    with pytest.raises(ImageError):
        read_image(path)


@pytest.mark.parametrize("section", ["code", "weights", "args", "strings"])
def test_section_that_is_not_aligned(container: Container, tmp_path: Path, section: str) -> None:
    container.dump()
    container[section].lies.update(offset=container[section].entry["offset"] + 8, size=0)
    path = tmp_path / "bad.img"
    path.write_bytes(container.dump())
    refuse(path, f"section {section} is not aligned", "damaged", read=False)


def _record(section: str, record: schema.Record, index: int, /, **values: int) -> Change:
    return lambda c: c[section].set(record, index, **values)


def _bytes(section: str, data: bytes) -> Change:
    def change(container: Container) -> None:
        container[section].data = bytearray(data)

    return change


FAR = 2**31
T, P, C, A, K, D = schema.TENSOR, schema.PLAN, schema.CALL, schema.ARG, schema.KERNEL, schema.DIM


def test_scratch_of_all_threads_beyond_the_addresses(container: Container, tmp_path: Path) -> None:
    """A sum of sizes that wraps around must not pass for a small one."""
    path = tmp_path / "huge.img"
    container["plans"].set(P, 0, scratch_size=2**63 - 1)
    path.write_bytes(container.dump())
    for threads in (1, 2, 4, 256):
        with pytest.raises(RunError, match=f"9223372036854775807 for each of {threads} threads|no memory"):
            Session(path, threads=threads)


def _drop_last_byte(section: str) -> Change:
    return lambda c: c[section].data.pop() and None


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("section 2", _bytes("strings", b"")),
        ("section 2", _drop_last_byte("strings")),
        ("section 5", _bytes("plans", b"")),
        ("section 1", _bytes("target", b"")),
        ("the target", _record("target", schema.TARGET, 0, name=FAR)),
        ("the target", _record("target", schema.TARGET, 0, arch=FAR)),
        ("the target", _record("target", schema.TARGET, 0, requires=FAR)),
        ("dimension 0", _record("dims", D, 0, extent=-1)),
        ("tensor 0", _record("dims", D, 0, extent=2**62)),
        ("tensor 0", _record("dims", D, 0, extent=999)),
        ("tensor 0", _record("tensors", T, 0, name=FAR)),
        ("tensor 0", _record("tensors", T, 0, dtype=0)),
        ("tensor 0", _record("tensors", T, 0, dtype=14)),
        ("tensor 0", _record("tensors", T, 0, rank=FAR)),
        ("tensor 0", _record("tensors", T, 0, dims_begin=2**32 - 1)),
        ("tensor 5", _record("tensors", T, 5, rank=3)),
        ("tensor 0", _record("tensors", T, 0, nbytes=4001)),
        ("plan 0", _record("tensors", T, 0, arena_offset=8)),
        ("plan 0", _record("tensors", T, 0, arena_offset=2**63)),
        ("plan 0", _record("tensors", T, 0, arena_offset=2**64 - 64)),
        ("plan 0", _record("tensors", T, 2, arena_offset=4 * 4032)),
        ("plan 0", _record("plans", P, 0, input_begin=FAR)),
        ("plan 1", _record("plans", P, 1, input_count=FAR)),
        ("plan 1", _record("plans", P, 1, input_count=4)),
        ("plan 1", _record("plans", P, 1, output_count=3)),
        ("plan 0", _record("plans", P, 0, output_begin=2**32 - 1, output_count=2**32 - 1)),
        ("plan 0", _record("plans", P, 0, call_begin=6, call_count=1)),
        ("plan 0", _record("plans", P, 0, arena_size=64)),
        ("plan 0", _record("plans", P, 0, arena_size=2**64 - 1)),
        ("plan 0", _record("plans", P, 0, scratch_size=2**64 - 1)),
        ("call 0", _record("calls", C, 0, kernel=5)),
        ("call 0", _record("calls", C, 0, arg_begin=2**32 - 1, arg_count=2)),
        ("call 5", _record("calls", C, 5, arg_count=FAR)),
        ("call 5", _record("calls", C, 5, arg_count=4)),
        ("call 0", _record("calls", C, 0, extent=-1)),
        ("call 0", _record("calls", C, 0, grain=0)),
        ("call 0", _record("calls", C, 0, grain=-5)),
        ("call 0", _record("calls", C, 0, layer=FAR)),
        ("call 0", _record("calls", C, 0, op=FAR)),
        ("call 0", _record("calls", C, 0, template=FAR)),
        ("argument 0", _record("args", A, 0, space=5)),
        ("argument 0", _record("args", A, 0, index=1)),
        ("argument 0", _record("args", A, 0, size=4001)),
        ("argument 0", _record("args", A, 0, offset=1)),
        ("argument 0", _record("args", A, 0, offset=2**64 - 1, size=2)),
        ("argument 1", _record("args", A, 1, offset=8000)),
        ("argument 2", _record("args", A, 2, offset=2**64 - 4000)),
        ("argument 4", _record("args", A, 4, index=2)),
        ("argument 4", _record("args", A, 4, size=4001)),
        ("argument 6", _record("args", A, 6, offset=12032)),
        ("argument 6", _record("args", A, 6, size=12033)),
        ("kernel 0", _record("kernels", K, 0, name=FAR)),
        ("kernel 0", _record("kernels", K, 0, offset=2**40)),
    ],
)
def test_field_out_of_range(container: Container, tmp_path: Path, what: str, change: Change) -> None:
    change(container)
    path = tmp_path / "bad.img"
    path.write_bytes(container.dump())
    refuse(path, f"{what} has a field out of range", "wrote the image is at fault", read=False)
    with contextlib.suppress(ImageError):  # `inspect` may show what it can, and fails in no other way
        read_image(path)


def test_arena_that_cannot_be_had(container: Container, tmp_path: Path) -> None:
    container["plans"].set(P, 0, arena_size=2**62)
    path = tmp_path / "huge.img"
    path.write_bytes(container.dump())
    with pytest.raises(RunError, match="no memory for an arena of 4611686018427"):
        Session(path)
    Session(path, plan=1).close()
