"""Measure pairs of images in a process of its own, on this machine or on a board through TVM's RPC tracker.

A job is a folder: ``job.json``, two images, the inputs' bytes and the outputs that are expected. The runner
is one of MetaSchedule's, so that whatever gives times can take its place, a simulator's cycles as well.
"""

from __future__ import annotations

import concurrent.futures
import json
import re
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import rpc
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerInput, RunnerResult
from tvm.support.popen_pool import PopenPoolExecutor

from tvm_ipu.base.tensor import numpy_dtype
from tvm_ipu.tune.reference import is_close

JOB, OUTPUT = "job.json", "output"
_MESSAGE_BYTES = 384


@dataclass(frozen=True)
class Tracker:
    """TVM's RPC tracker, which lends boards.

    Attributes:
        host: Its address.
        port: Its port.
        key: Kind of board.
    """

    host: str
    port: int
    key: str


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        library: What ``harness.build_harness`` made.
        images: Two images of the same inputs and outputs.
        calls: Kernel calls of each.
        inputs: ``.npy`` file of each input's bytes.
        outputs: ``.npy`` file of the bytes of each output that the second image must compute. Where there are
            none, what it computes is written to such files (``written_outputs``).
        dtypes: Element type of each output.
        sizes: Bytes of each output.
        threads: Numbers of threads to measure with.
        runs: Timed runs of each image with each of them.
        evict: Bytes of other memory that are read before each run.
    """

    library: str
    images: tuple[str, str]
    calls: tuple[int, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dtypes: tuple[str, ...]
    sizes: tuple[int, ...]
    threads: tuple[int, ...]
    runs: int
    evict: int


Times = list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
"""By number of threads: nanoseconds [runs, calls] of the first image and of the second."""


class WrongResultError(Exception):
    """The second image computed something else than it must."""


@derived_object
class Future(PyRunnerFuture):  # type: ignore[misc]
    """A job that runs."""

    def __init__(self, future: concurrent.futures.Future[list[float]]) -> None:
        super().__init__()
        self.future = future

    def done(self) -> bool:
        """Whether ``result`` does not wait."""
        return self.future.done()

    def result(self) -> RunnerResult:
        """Times of all runs in nanoseconds, as ``flatten`` orders them, or why there are none."""
        try:
            return RunnerResult(self.future.result(), None)
        except TimeoutError:
            return RunnerResult(None, "it took too long")
        except Exception as err:  # whatever a kernel does to its process
            lines = str(err).strip().splitlines() or [type(err).__name__]
            return RunnerResult(None, re.sub(r"^[\w.]+Error: ", "", lines[-1]))


@derived_object
class ImageRunner(PyRunner):  # type: ignore[misc]
    """MetaSchedule's runner for jobs: an artifact is a job's folder.

    Args:
        timeout: Seconds that a job may take.
        tracker: Where to get a board from; this machine measures by default.
    """

    def __init__(self, timeout: float, tracker: Tracker | None = None) -> None:
        super().__init__()
        self.timeout = timeout
        self.tracker = tracker
        self.pool = PopenPoolExecutor(max_workers=1, timeout=timeout, initializer=ignore_interrupts)

    def run(self, runner_inputs: list[RunnerInput]) -> list[Any]:
        """Start the jobs, one after the other."""
        return [
            Future(self.pool.submit(_run, str(one.artifact_path), self.tracker, self.timeout))
            for one in runner_inputs
        ]


def write_job(folder: Path, job: Job) -> RunnerInput:
    """Make ``folder`` an artifact."""
    (folder / JOB).write_text(json.dumps(asdict(job)), encoding="utf-8")
    return RunnerInput(str(folder), "cpu", [])


def read_times(job: Job, result: RunnerResult) -> Times:
    """Times of a job that has run."""
    flat = np.array([float(value) for value in result.run_secs], np.float64)
    sizes = [job.runs * calls for _ in job.threads for calls in job.calls]
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [(a.reshape(job.runs, -1), b.reshape(job.runs, -1)) for a, b in pairs]


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that tunes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(folder: str, tracker: Tracker | None, timeout: float) -> list[float]:
    """Run a job, in the worker's process.

    Raises:
        WrongResultError: The second image's outputs are wrong.
        RuntimeError: A run failed.
    """
    fields = json.loads((Path(folder) / JOB).read_text(encoding="utf-8"))
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    job = Job(**values)
    device, function = _open_board(job.library, tracker, timeout) if tracker else _open_here(job.library)

    def send(array: np.ndarray[Any, Any]) -> Any:
        return tvm.runtime.tensor(array.reshape(-1).view(np.uint8), device)

    message = send(np.zeros(_MESSAGE_BYTES, np.uint8))
    images = [send(np.fromfile(path, np.uint8)) for path in job.images]
    inputs = [send(np.load(path)) for path in job.inputs]
    expected = [np.load(path) for path in job.outputs]
    outputs = [send(np.zeros(size, np.uint8)) for size in job.sizes]
    flat: list[float] = []
    for threads in job.threads:
        times = [send(np.zeros((job.runs, calls), np.uint64)) for calls in job.calls]
        if function(threads, job.evict, message, *images, *times, *inputs, *outputs):
            raise RuntimeError(message.numpy().tobytes().split(b"\0")[0].decode(errors="replace"))
        for index, known in enumerate(expected):
            dtype = numpy_dtype(job.dtypes[index])
            if not is_close(outputs[index].numpy().view(dtype), known.view(dtype)):
                raise WrongResultError(f"output {index} is wrong with {threads} threads")
        if not job.outputs:
            save_arrays(Path(folder), OUTPUT, [output.numpy() for output in outputs])
        flat += [float(t) for part in times for t in part.numpy().view(np.uint64)]
    return flat


@cache
def _open_here(library: str) -> tuple[Any, Any]:
    return tvm.cpu(), tvm.runtime.load_module(library)["tvm_ipu_measure"]


def _open_board(library: str, tracker: Tracker, timeout: float) -> tuple[Any, Any]:
    session = rpc.connect_tracker(tracker.host, tracker.port).request(
        tracker.key, session_timeout=max(1, round(timeout))
    )
    session.upload(library)
    return session.cpu(), session.load_module(Path(library).name)["tvm_ipu_measure"]


def quickest(samples: np.ndarray[Any, Any]) -> float:
    """Time of an undisturbed run: what other programs do can only add to it."""
    return float(np.min(samples))


def written_outputs(folder: Path, job: Job) -> list[np.ndarray[Any, Any]]:
    """What the second image of a job without expected outputs computed, flat."""
    files = [folder / f"{OUTPUT}{number}.npy" for number in range(len(job.sizes))]
    return [np.load(file).view(numpy_dtype(dtype)) for file, dtype in zip(files, job.dtypes, strict=True)]


def save_arrays(folder: Path, name: str, arrays: Sequence[np.ndarray[Any, Any]]) -> tuple[str, ...]:
    """Write arrays' bytes to files, as a job names them."""
    files = [folder / f"{name}{number}.npy" for number in range(len(arrays))]
    for file, array in zip(files, arrays, strict=True):
        np.save(file, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return tuple(map(str, files))
