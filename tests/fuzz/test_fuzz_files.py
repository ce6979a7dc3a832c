"""The fuzzer of readers sees what it is there for, and its files are the same each time."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest

from tests.fuzz import fuzz_files, mutators
from tests.fuzz.canary import Canary
from tests.fuzz.others import QUANT
from tests.fuzz.reader import Reader, command
from tests.unit.config_kit import MIXED
from tests.unit.frontend_kit import network
from tvm_ipu.base.errors import ModelError

ARRAY = (
    b"\x93NUMPY\1\0"
    + (70).to_bytes(2, "little")
    + b"{'descr': '<f4', 'shape': (3,), 'fortran_order': False}".ljust(70)
)
FILES = {
    "net.onnx": network().SerializeToString(),
    "net.tflite": bytes(range(256)),
    "p.json": b'[{"name": "x", "min": [0.5]}, null]',
    "r.jsonl": b'{"a": 1}\n{"b": [2]}\n',
    "input_config.ini": MIXED.encode(),
    "quant_config.yaml": QUANT.encode(),
    "a.npy": ARRAY + bytes(12),
    "x.bin": b"bytes",
}


@pytest.mark.parametrize("name", FILES)
def test_a_number_always_gives_the_same_file(name: str) -> None:
    files = {name: FILES[name]}
    made = [mutators.mutate(files, Random(f"0 {number}"))[name] for number in range(50)]
    assert made == [mutators.mutate(files, Random(f"0 {number}"))[name] for number in range(50)]
    assert len(set(made)) > 20
    assert files == {name: FILES[name]}


def test_messages_survive_being_taken_apart() -> None:
    model = FILES["net.onnx"]
    fields = mutators.fields(model)
    assert fields is not None
    assert mutators.join_fields(fields) == model
    (graph,) = (value for number, _, value in fields if number == 7)
    nodes = [value for number, _, value in mutators.fields(graph) or [] if number == 1]
    assert nodes == [node.SerializeToString() for node in onnx.ModelProto.FromString(model).graph.node]


def fails(_: Path) -> None:
    np.zeros(3)[5]


def refuses(_: Path) -> None:
    raise ModelError("no")


def leaves(folder: Path) -> None:
    (folder / "out.img").touch()
    refuses(folder)


def runs(folder: Path) -> None:
    pickle.loads((folder / "x").read_bytes())


READS: list[tuple[Callable[[Path], object], str]] = [
    (fails, "IndexError: index 5 is out of bounds"),
    (refuses, fuzz_files.REFUSED),
    (leaves, "left behind: out.img"),
    (runs, "a function that the file names was called"),
    (command("inspect missing.onnx"), fuzz_files.REFUSED),
    (lambda _: None, ""),
]


@pytest.mark.parametrize(("read", "wanted"), READS)
def test_outcomes(
    read: Callable[[Path], object], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (fuzz_files.CASE, fuzz_files.TEMPORARY):
        (tmp_path / part).mkdir()
    (tmp_path / fuzz_files.LOG).touch()
    monkeypatch.chdir(tmp_path / fuzz_files.CASE)
    reader = Reader(lambda _: iter([]), read)  # type: ignore[arg-type]
    watch = fuzz_files.Watch(tmp_path, programs=False)
    outcome = fuzz_files.check_files(reader, {"x": pickle.dumps(Canary())}, tmp_path, watch)
    assert wanted in outcome if wanted else not outcome


def test_programs_and_files_elsewhere_are_seen(tmp_path: Path) -> None:
    watch = fuzz_files.Watch(tmp_path, programs=False)
    watch.notice("os.system", ("true",))
    watch.notice("open", ("/elsewhere/x", "w", 1))
    watch.notice("open", ("/elsewhere/x", "r", 0))
    watch.notice("open", (str(tmp_path / "x"), "w", 1))
    assert watch.seen == ["os.system: ('true',)", "open for writing: /elsewhere/x"]


def test_findings_of_one_kind_have_one_name() -> None:
    with pytest.raises(IndexError) as caught:
        fails(Path())
    fault = "".join(traceback.format_exception(caught.value))
    assert fuzz_files.summary(fault) == "IndexError at tests/fuzz/test_fuzz_files.py fails"
    crash = (
        'crash: SIGSEGV\nFile "/x/tvm_ipu/a.py", line 3 in inner\nFile "/x/tvm_ipu/b.py", line 4 in outer\n'
    )
    assert fuzz_files.summary(crash) == "crash: SIGSEGV at tvm_ipu/a.py inner"
