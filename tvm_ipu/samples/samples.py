"""Arrays of a model's inputs, made by preprocess scripts in worker processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.tensor import TensorSpec
from tvm_ipu.samples.files import Sample, find_samples
from tvm_ipu.samples.steps import Step, parse_steps, step_to_json

Array = NDArray[Any]

TIMEOUT = 300.0
"""Seconds that preprocessing of one sample may take."""

EXACT, PADDED, ANY = "exact", "padded", "any"

_STDERR = 2


@dataclass(frozen=True)
class Samples:
    """Samples in a fixed order.

    Attributes:
        files: A file for each input, for each sample.
        steps: How each input's array is made.
        timeout: Seconds that one sample may take.
        shapes: What arrays' shapes must be: ``EXACT``, those of the inputs; ``PADDED``, those of frames,
            whose padding arrays may leave out; or ``ANY``.
    """

    files: tuple[Sample, ...]
    steps: tuple[Step, ...]
    timeout: float = TIMEOUT
    shapes: str = EXACT

    def __len__(self) -> int:
        return len(self.files)

    def read(self, norm: bool = True, processes: int = 1) -> Iterator[dict[str, Array]]:
        """The arrays by input, a sample after the other.

        Args:
            norm: True for what the float model takes, False for the raw data of fixed and offline models.
            processes: Worker processes; the order does not depend on them.

        Raises:
            OptionError: A script failed, took too long, or returned something else than the model takes.
        """
        count = max(1, min(processes, len(self)))
        workers: list[_Worker] = []
        try:
            workers += [_Worker(self.steps) for _ in range(count)]
            for number in range(count):
                workers[number].ask(self.files[number], norm)
            for number, files in enumerate(self.files):
                worker = workers[number % count]
                arrays = worker.answer(files, norm, self.timeout)
                if number + count < len(self):
                    worker.ask(self.files[number + count], norm)
                yield {
                    step.spec.name: check(array, step, file, norm, self.shapes)
                    for step, array, file in zip(self.steps, arrays, files, strict=True)
                }
        finally:
            for worker in workers:
                worker.close()


def open_samples(
    source: Path | str,
    preprocess: str,
    specs: tuple[TensorSpec, ...],
    contract: Contract | None = None,
    timeout: float = TIMEOUT,
) -> Samples:
    """The samples of ``-i`` and ``-n``; the files are looked for, and nothing is read yet.

    Args:
        source: A file, a folder, or a list of files.
        preprocess: Scripts or names of built-in preprocessing, with commas between the inputs.
        specs: Inputs of the float model.
        contract: What the bytes of the fixed model mean; its order of inputs counts.
        timeout: Seconds that one sample may take.

    Raises:
        OptionError: A file is missing, or the number of files or scripts is not that of the inputs.
    """
    inputs = contract.inputs if contract else ()
    if inputs:
        by_name = {spec.name: spec for spec in specs}
        specs = tuple(by_name[one.name] for one in inputs if one.name in by_name)
    steps = parse_steps(preprocess, specs, inputs)
    return Samples(tuple(find_samples(Path(source), len(specs))), steps, timeout)


def check(array: Array, step: Step, file: Path, norm: bool, shapes: str = EXACT) -> Array:
    """An array in the model's type; ``shapes`` is as for ``Samples``.

    Raises:
        OptionError: It has another shape, or a type that would lose numbers.
    """
    wanted = step.dtype(norm)
    call = f"{step.label}: image_preprocess('{file}', norm={norm})"
    if (
        shapes != ANY
        and array.shape != step.spec.shape
        and not (shapes == PADDED and _fits_frame(array.shape, step))
    ):
        raise OptionError(
            f"{call} returned shape {array.shape}",
            f"input '{step.spec.name}' takes {step.spec.shape}" + (", NHWC" if _is_nhwc(step) else ""),
        )
    if not np.can_cast(array.dtype, wanted.label, "safe"):
        raise OptionError(
            f"{call} returned {array.dtype}",
            f"input '{step.spec.name}' takes {wanted.label}" + ("" if norm else " without normalisation"),
        )
    return array.astype(wanted.label, copy=False)


def _fits_frame(shape: tuple[int, ...], step: Step) -> bool:
    """Whether padding a picture to the contract's alignment gives the frame."""
    contract = step.contract
    if contract is None or contract.is_raw or len(shape) != 4:
        return False
    at = 2 if contract.is_planar else 1
    return (*shape[:at], *contract.padded(shape), *shape[at + 2 :]) == step.spec.shape


def _is_nhwc(step: Step) -> bool:
    return step.contract is not None and step.contract.layout == "NHWC" and len(step.spec.shape) == 4


@dataclass
class _Worker:
    """One worker process and the connection to it."""

    steps: tuple[Step, ...]
    connection: Connection[Any, Any] = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tvm_ipu.samples.worker", str(theirs.fileno())]
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        with theirs:
            self.process = subprocess.Popen(  # what scripts print goes to stderr: stdout is for results
                command,
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": paths},
            )
        self.connection = Connection(ours.detach())
        self._send(json.dumps([step_to_json(step) for step in self.steps]))

    def _send(self, text: str) -> None:
        with suppress(OSError):  # it may have ended, as ``answer`` will say
            self.connection.send_bytes(text.encode())

    def ask(self, files: Sample, norm: bool) -> None:
        """Start with a sample."""
        self._send(json.dumps({"files": [str(file) for file in files], "norm": norm}))

    def answer(self, files: Sample, norm: bool, timeout: float) -> list[Array]:
        """The arrays of the sample that was asked for.

        Raises:
            OptionError: The script failed, ended its process, or took too long.
        """
        scripts = ", ".join(dict.fromkeys(step.label for step in self.steps))
        names = ", ".join(map(str, files))
        try:
            if not self.connection.poll(timeout):
                raise OptionError(
                    f"-n: {scripts}: no result for {names} within {timeout:g} s", "--timeout gives more time"
                )
            found = json.loads(self.connection.recv_bytes())
            if "error" not in found:
                return [
                    np.frombuffer(self.connection.recv_bytes(), np.uint8).view(dtype).reshape(shape)
                    for dtype, shape in found["arrays"]
                ]
        except (EOFError, OSError):
            raise OptionError(f"-n: {scripts}: the process {self._ending()} at {names}") from None
        step, file = self.steps[found["input"]], files[found["input"]]
        raise OptionError(
            f"-n: {step.label}: image_preprocess('{file}', norm={norm}) failed: {found['error']}",
            "run with -v to see where" if step.script else "",
        ) from ScriptError(found["traceback"])

    def _ending(self) -> str:
        code = self.process.wait()
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


class ScriptError(Exception):
    """Traceback of a script."""
