"""The Python session: numpy in and out, binding, and messages for every wrong argument."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.image.image_kit import chain_program, elementwise_program, sample_program, sample_result
from tvm_ipu.base.errors import ImageError, RunError
from tvm_ipu.base.program import Program
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.image.writer import write_image
from tvm_ipu.runtime import Session


@pytest.fixture
def session(sample: Path) -> Iterator[Session]:
    with Session(sample) as opened:
        yield opened


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(1000).astype(np.float32)


def open_program(program: Program, tmp_path: Path) -> Session:
    path = tmp_path / "p.img"
    write_image(program, path)
    return Session(path)


def check(outputs: dict[str, np.ndarray], x: np.ndarray) -> None:
    expected = sample_result(x)
    assert list(outputs) == ["y", "z"]
    for name, array in outputs.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name], rtol=1e-6)


def test_facts(session: Session) -> None:
    assert session.inputs == (TensorSpec("x", (1000,), DType.FLOAT32),)
    assert session.outputs == (
        TensorSpec("y", (1000,), DType.FLOAT32),
        TensorSpec("z", (1, 1000), DType.FLOAT32),
    )
    assert session.plan_count == 2
    assert session.target == "test-host"
    assert session.metadata == {"model": "sample", "größe": 1000}
    assert session.arena_size == sample_program().plans[0].arena_size


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_run(sample: Path, x: np.ndarray, threads: int) -> None:
    with Session(sample, threads=threads) as session:
        for scale in (1, -2, 3):
            check(session.run({"x": x * np.float32(scale)}), x * np.float32(scale))


def test_results_do_not_share_memory(session: Session, x: np.ndarray) -> None:
    first = session.run({"x": x})
    session.run({"x": x + 1})
    check(first, x)


def test_second_plan(sample: Path) -> None:
    with Session(sample, plan=1) as session:
        x = np.ones(2000, np.float32)
        check(session.run({"x": x}), x)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_image_in_memory(sample: Path, x: np.ndarray, kind: type) -> None:
    with Session(kind(sample.read_bytes())) as session:
        check(session.run({"x": x}), x)


def test_replaced_file_keeps_running(tmp_path: Path, x: np.ndarray) -> None:
    """The writer renames, so a mapped image never changes."""
    path = tmp_path / "s.img"
    write_image(sample_program(), path)
    with Session(path) as session:
        write_image(chain_program(2, 8), path)
        check(session.run({"x": x}), x)


def test_strided_input(session: Session, x: np.ndarray) -> None:
    check(session.run({"x": np.repeat(x, 2)[::2]}), x)


class Dlpack:
    """An array that offers nothing but DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: object) -> object:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


def test_dlpack(session: Session, x: np.ndarray) -> None:
    check(session.run({"x": Dlpack(x)}), x)


def test_dlpack_from_elsewhere(session: Session, x: np.ndarray) -> None:
    class OnDevice(Dlpack):
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, **options: object) -> object:
            raise BufferError("on a GPU")

    with pytest.raises(RunError, match="input 'x': numpy cannot take the array over"):
        session.run({"x": OnDevice(x)})


def test_torch_in_and_out(session: Session, x: np.ndarray) -> None:
    """Tensors go in as they are, bound ones without a copy, and outputs go on to other libraries."""
    import torch

    tensor = torch.from_numpy(x)
    result = session.run({"x": tensor})
    check(result, x)
    for taken in (torch.from_dlpack(result["y"]), torch.from_numpy(result["y"])):
        assert taken.data_ptr() == result["y"].ctypes.data
        np.testing.assert_array_equal(taken.numpy(), np.from_dlpack(result["y"]))
    aligned = torch.from_dlpack(session.empty("x"))
    session.bind_input("x", aligned)
    for scale in (1, 3):
        aligned.copy_(tensor * scale)
        check(session.run(), x * np.float32(scale))
    session.bind_input("x", None)
    with pytest.raises(RunError, match=r"input 'x': numpy cannot take the array over: .*grad"):
        session.run({"x": tensor.clone().requires_grad_()})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing .the model's inputs: x: float32.1000.."),
        ({"y": 1}, "input 'x' is missing"),
        ({"x": np.zeros(1000, np.float32), "w": 1}, "there is no input 'w' .known: x: float32.1000.."),
        ({"x": np.zeros(1000)}, "input 'x' has type float64, but the model needs float32"),
        ({"x": np.zeros(1000, ">f4")}, "input 'x' has type >f4, but the model needs float32"),
        ({"x": np.zeros(999, np.float32)}, r"input 'x' has shape \(999,\), but the model needs \(1000,\)"),
        ({"x": np.zeros((1, 1000), np.float32)}, r"input 'x' has shape \(1, 1000\)"),
        ({"x": np.float32(1)}, r"input 'x' has shape \(\)"),
        ({"x": [0.0] * 1000}, "input 'x' is a list, not an array"),
        ({"x": None}, "input 'x' is a NoneType, not an array"),
    ],
)
def test_wrong_inputs(session: Session, inputs: dict[str, object], message: str) -> None:
    with pytest.raises(RunError, match=message):
        session.run(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": 2}, "there is no plan 2; the image has 2"),
        ({"plan": -1}, "plan=-1: must be at least 0"),
        ({"threads": 0}, "threads=0: must be at least 1"),
        ({"threads": 1000}, "1000 threads; allowed are 1 to 256"),
    ],
)
def test_wrong_options(sample: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(RunError, match=message):
        Session(sample, **options)


def test_verify(sample: Path, tmp_path: Path, x: np.ndarray) -> None:
    Session(sample, verify=True).close()
    data = bytearray(sample.read_bytes())
    data[-1] ^= 1  # the last weight
    path = tmp_path / "damaged.img"
    path.write_bytes(data)
    Session(path).close()
    with pytest.raises(ImageError, match="checksum of section weights is wrong"):
        Session(path, verify=True)


def test_bound_arrays(session: Session, x: np.ndarray) -> None:
    source, result = session.empty("x"), session.empty("y")
    session.bind_input("x", source)
    session.bind_output("y", result)
    for scale in (1, 5):
        source[:] = x * np.float32(scale)
        outputs = session.run()
        assert outputs["y"] is result
        check(outputs, source)
    with pytest.raises(RunError, match="input 'x' is bound"):
        session.run({"x": x})
    session.bind_input("x", None)
    session.bind_output("y", None)
    result[:] = 0
    check(session.run({"x": x}), x)
    assert not result.any()


def test_wrong_bindings(session: Session) -> None:
    wide = session.empty("x").base
    assert wide is not None
    begin = -wide.ctypes.data % 64 + 4
    with pytest.raises(RunError, match="memory bound to 'x' is not at a multiple of 64 bytes"):
        session.bind_input("x", wide[begin : begin + 4000].view(np.float32))
    with pytest.raises(RunError, match="there is no input 'y'"):
        session.bind_input("y", session.empty("y"))
    with pytest.raises(RunError, match="output 'y' has shape"):
        session.bind_output("y", np.zeros(3, np.float32))
    with pytest.raises(RunError, match="not contiguous"):
        session.bind_input("x", np.zeros(2000, np.float32)[::2])
    constant = session.empty("y")
    constant.flags.writeable = False
    with pytest.raises(RunError, match="cannot be written"):
        session.bind_output("y", constant)
    with pytest.raises(RunError, match="there is no input or output 'q'"):
        session.empty("q")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.int16, np.uint16])
def test_16_bit_types(tmp_path: Path, dtype: type) -> None:
    kind = DType.parse(np.dtype(dtype).name)
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    with open_program(elementwise_program("copy16", kind, (2, 3, 4)), tmp_path) as session:
        result = session.run({"x": values})["y"]
        assert result.dtype == dtype
        np.testing.assert_array_equal(result.view(np.uint16), values.view(np.uint16))


def test_bfloat16_bits(tmp_path: Path) -> None:
    with open_program(elementwise_program("copy16", DType.BFLOAT16, (3,)), tmp_path) as session:
        bits = np.array([0x3F80, 0x4000, 0x7F80], np.uint16)
        result = session.run({"x": bits})["y"]
        np.testing.assert_array_equal(result.astype(np.float32), [1, 2, np.inf])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_scalars_and_empty_tensors(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with open_program(elementwise_program("copy16", DType.INT16, shape), tmp_path) as session:
        values = np.full(shape, -3, np.int16)
        result = session.run({"x": values})["y"]
        assert result.shape == shape
        np.testing.assert_array_equal(result, values)


def test_kernel_failure_names_the_layer(tmp_path: Path) -> None:
    with open_program(elementwise_program("broken", DType.INT16, (4,)), tmp_path) as session:
        with pytest.raises(RunError, match=r"layer '/broken' \(kernel broken\) failed with code 7"):
            session.run({"x": np.zeros(4, np.int16)})
        with pytest.raises(RunError, match="/broken"):
            session.profile()
        with pytest.raises(RunError, match="/broken"):
            session.time_runs(3)


def test_profile_and_times(session: Session, x: np.ndarray) -> None:
    session.run({"x": x})
    calls = session.profile()
    assert [(c.layer, c.op, c.kernel, c.template, c.flops, c.bytes) for c in calls] == [
        (f"/{k}", k, k, "generic", 1000, 4000) for k in ("add", "twice", "gather")
    ]
    assert all(c.ns > 0 for c in calls)
    times = session.time_runs(20)
    assert len(times) == 20
    assert all(0 < t < 10**9 for t in times)
    assert session.time_runs(0) == []
    with pytest.raises(RunError, match="repeat=-1"):
        session.time_runs(-1)


def test_closed_session(sample: Path, x: np.ndarray) -> None:
    session = Session(sample)
    session.close()
    session.close()
    for use in (lambda: session.run({"x": x}), session.profile, lambda: session.time_runs(1)):
        with pytest.raises(RunError, match="the session is closed"):
            use()


def test_threads_may_share_a_session_or_make_their_own(sample: Path) -> None:
    shared = Session(sample, threads=2)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal(1000).astype(np.float32)
        try:
            with Session(sample) as own:
                for _ in range(20):
                    check(shared.run({"x": x}), x)
                    check(own.run({"x": x}), x)
        except BaseException as err:
            failures.append(err)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    shared.close()
    assert not failures


def test_forked_child_works_alone_and_ends(sample: Path) -> None:
    """Its workers stay behind in the parent: it must not wait for them, not even in closing the session."""
    program = (
        "import os, signal, sys, time, numpy\n"
        "from tvm_ipu import Session\n"
        f"session = Session({str(sample)!r}, threads=4)\n"
        "x = numpy.ones(1000, 'float32')\n"
        "before = session.run({'x': x})['z']\n"
        "time.sleep(0.1)  # the workers fall asleep\n"
        "child = os.fork()\n"
        "signal.alarm(30)\n"
        "assert (session.run({'x': x})['z'] == before).all()\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    assert (session.run({'x': x})['z'] == before).all()\n"
        "session.close()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_neither_tvm_nor_onnx_is_imported(sample: Path) -> None:
    program = (
        "import sys, numpy\n"
        "from tvm_ipu import Session\n"
        f"Session({str(sample)!r}).run({{'x': numpy.zeros(1000, 'float32')}})\n"
        "bad = {m.split('.')[0] for m in sys.modules} & {'tvm', 'tvm_ffi', 'onnx', 'ml_dtypes', 'json'}\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
