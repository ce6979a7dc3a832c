"""Run an offline image from Python. Imports neither TVM nor onnx.

numpy takes longer to import than an image to load, so it is imported by what first passes an array.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tvm_ipu.base.errors import RunError
from tvm_ipu.base.tensor import DType, TensorSpec, numpy_dtype
from tvm_ipu.runtime import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(frozen=True)
class CallTime:
    """Time of one kernel call.

    Attributes:
        layer: The model's node or nodes.
        op: Kind of operator.
        template: Template that made the kernel, or ``generic``.
        kernel: Symbol in the image's code.
        flops: Operations; a multiply-add counts two.
        bytes: Bytes that have to be read and written at least.
        ns: Nanoseconds.
    """

    layer: str
    op: str
    template: str
    kernel: str
    flops: int
    bytes: int
    ns: int


class Session:
    """A loaded image with memory and threads of its own.

    Any thread may use a session; calls wait for each other. Sessions on the same file share its weights.

    Args:
        source: Path of an image, or its bytes, which must not change while the session is open.
        plan: Number of the plan to run; the first if not given.
        threads: Threads that share the work, the calling one included.
        verify: Compare the checksum of the weights too, which reads all of them.

    Raises:
        ImageError: The image is missing, damaged, or for another version or machine.
        RunError: There is no such plan, or no memory or thread to be had.
        ToolError: The C runtime has to be built and cannot be.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes | bytearray | memoryview,
        plan: int | None = None,
        threads: int = 1,
        verify: bool = False,
    ) -> None:
        self._lock = threading.RLock()
        self._handle = ctypes.c_void_p()
        self._bound: dict[tuple[str, str], Array] = {}
        for name, value, lowest in (("plan", plan or 0, 0), ("threads", threads, 1)):
            if not lowest <= value < 2**31:
                raise RunError(f"{name}={value}: must be at least {lowest}")
        self._library = load = library.load_library()
        image = ctypes.c_void_p()
        flags = library.VERIFY_WEIGHTS if verify else 0
        if isinstance(source, (str, os.PathLike)):
            library.call("image_open_file", os.fsencode(source), flags, ctypes.byref(image))
        else:
            import numpy as np

            self._source = np.frombuffer(source, np.uint8)
            library.call(
                "image_open_memory", self._source.ctypes.data, self._source.size, flags, ctypes.byref(image)
            )
        try:
            library.call("session_create", image, plan or 0, threads, ctypes.byref(self._handle))
            self.plan_count = int(load.tvm_ipu_image_plan_count(image))
            self.target = str(load.tvm_ipu_image_target(image).decode())
            self._metadata = _metadata_text(load, image)
        finally:
            load.tvm_ipu_image_close(image)
        self._plan = load.tvm_ipu_session_plan(self._handle).contents
        self.inputs = _specs(self._plan.inputs, self._plan.input_count)
        self.outputs = _specs(self._plan.outputs, self._plan.output_count)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    def close(self) -> None:
        """Stop the threads and free the memory; the session cannot be used any more."""
        with self._lock:
            if self._handle:
                self._library.tvm_ipu_session_destroy(self._handle)
            self._handle = ctypes.c_void_p()
            self._bound.clear()

    @property
    def metadata(self) -> dict[str, Any]:
        """Facts about the model that the compiler has recorded."""
        import json  # only here: starting a session must be quick

        value: dict[str, Any] = json.loads(self._metadata or b"{}")
        return value

    @property
    def arena_size(self) -> int:
        """Bytes of the session's arena.

        Raises:
            RunError: The session is closed.
        """
        self._open()
        return int(self._plan.arena_size)

    def run(self, inputs: Mapping[str, object] | None = None) -> dict[str, Array]:
        """Run the model once.

        Args:
            inputs: Array of each input that is not bound, by name: numpy, or anything on the CPU with
                ``__dlpack__``, with exactly the input's shape and element type.

        Returns:
            Array of each output by name: a new one, or the bound one.

        Raises:
            RunError: An input is missing, unknown, or of another shape or type, or a kernel fails.
        """
        import numpy as np

        with self._lock:
            handle = self._open()
            given = dict(inputs or {})
            for index, spec in enumerate(self.inputs):
                if spec.name in given:
                    array = np.asarray(_checked(given.pop(spec.name), spec, "input"), order="C")
                    library.call("session_set_input", handle, index, array.ctypes.data, array.nbytes)
                elif ("input", spec.name) not in self._bound:
                    raise RunError(
                        f"input '{spec.name}' is missing", f"the model's inputs: {_listed(self.inputs)}"
                    )
            if given:
                raise RunError(f"there is no input '{next(iter(given))}'", f"known: {_listed(self.inputs)}")
            library.call("session_run", handle)
            return {spec.name: self._output(index, spec) for index, spec in enumerate(self.outputs)}

    def run_batch(self, batch: Sequence[Mapping[str, object]]) -> list[dict[str, Array]]:
        """Run the model once for each element of a batch, one after another, each with arrays of its own.

        Args:
            batch: For each element its inputs, as for ``run``.

        Raises:
            RunError: As for ``run``, or the batch is larger than the image was compiled for.
        """
        limit = self.metadata.get("batch_limit", 0)
        if limit and len(batch) > limit:
            raise RunError(
                f"a batch of {len(batch)} is larger than the image's {limit}", "compile with a larger --batch"
            )
        return [self.run(inputs) for inputs in batch]

    def time_runs(self, repeat: int) -> list[int]:
        """Run the model ``repeat`` times on what the inputs hold; nanoseconds of each run, measured in C.

        Raises:
            RunError: ``repeat`` is negative, the session is closed, or a kernel fails.
        """
        if not 0 <= repeat < 2**32:
            raise RunError(f"repeat={repeat}: must be 0 or more")
        with self._lock:
            times = (ctypes.c_uint64 * repeat)()
            library.call("session_time_runs", self._open(), repeat, times)
            return list(times)

    def profile(self) -> list[CallTime]:
        """Run the model once on what the inputs hold, with the time of each kernel call.

        Raises:
            RunError: The session is closed, or a kernel fails.
        """
        with self._lock:
            handle = self._open()
            times = (ctypes.c_uint64 * self._plan.call_count)()
            library.call("session_profile", handle, times)
            return [
                CallTime(
                    layer=call.layer.decode(),
                    op=call.op.decode(),
                    template=call.template_name.decode(),
                    kernel=call.kernel.decode(),
                    flops=call.flops,
                    bytes=call.bytes,
                    ns=ns,
                )
                for call, ns in zip(self._plan.calls[: self._plan.call_count], times, strict=True)
            ]

    def empty(self, name: str) -> Array:
        """An uninitialised array for the input or output ``name``, aligned as binding needs it.

        Raises:
            RunError: There is no input or output of that name.
        """
        spec = next((s for s in (*self.inputs, *self.outputs) if s.name == name), None)
        if spec is None:
            known = f"{_listed(self.inputs)}, {_listed(self.outputs)}"
            raise RunError(f"there is no input or output '{name}'", f"known: {known}")
        import numpy as np

        memory = np.empty(spec.nbytes + library.ALIGNMENT, np.uint8)
        begin = -memory.ctypes.data % library.ALIGNMENT
        return memory[begin : begin + spec.nbytes].view(numpy_dtype(spec.dtype.label)).reshape(spec.shape)

    def bind_input(self, name: str, array: object | None) -> None:
        """Read input ``name`` from ``array`` itself at every run; None goes back to copying.

        Raises:
            RunError: Unknown name, wrong shape or type, not contiguous, or not aligned (see ``empty``).
        """
        self._bind("input", self.inputs, name, array)

    def bind_output(self, name: str, array: object | None) -> None:
        """Write output ``name`` into ``array`` itself at every run; None goes back to copying.

        Raises:
            RunError: As for ``bind_input``, or ``array`` cannot be written.
        """
        self._bind("output", self.outputs, name, array)

    def _bind(self, kind: str, specs: tuple[TensorSpec, ...], name: str, given: object | None) -> None:
        index = next((i for i, spec in enumerate(specs) if spec.name == name), None)
        if index is None:
            raise RunError(f"there is no {kind} '{name}'", f"known: {_listed(specs)}")
        with self._lock:
            handle = self._open()
            if given is None:
                library.call(f"session_bind_{kind}", handle, index, None, 0)
                self._bound.pop((kind, name), None)
                return
            array = _checked(given, specs[index], kind)
            if not array.flags.c_contiguous or (kind == "output" and not array.flags.writeable):
                raise RunError(f"array bound to {kind} '{name}' is not contiguous or cannot be written")
            library.call(f"session_bind_{kind}", handle, index, array.ctypes.data, array.nbytes)
            self._bound[kind, name] = array

    def _output(self, index: int, spec: TensorSpec) -> Array:
        if ("output", spec.name) in self._bound:
            return self._bound["output", spec.name]
        import numpy as np

        array = np.empty(spec.shape, numpy_dtype(spec.dtype.label))
        library.call("session_get_output", self._handle, index, array.ctypes.data, array.nbytes)
        return array

    def _open(self) -> ctypes.c_void_p:
        if not self._handle:
            raise RunError("the session is closed")
        return self._handle


def _checked(given: object, spec: TensorSpec, kind: str) -> Array:
    """``given`` as an array of exactly the type and shape of ``spec``, without a copy."""
    import numpy as np

    if isinstance(given, (np.ndarray, np.generic)):
        array = np.asarray(given)
    elif hasattr(given, "__dlpack__"):
        try:
            array = np.from_dlpack(given)
        except (BufferError, RuntimeError, TypeError, ValueError) as err:
            raise RunError(f"{kind} '{spec.name}': numpy cannot take the array over: {err}") from err
    else:
        raise RunError(
            f"{kind} '{spec.name}' is a {type(given).__name__}, not an array", "pass a numpy or DLPack array"
        )
    dtype = numpy_dtype(spec.dtype.label)
    if not spec.dtype.is_in_numpy and array.dtype == np.dtype(f"uint{8 * spec.dtype.itemsize}"):
        array = array.view(dtype)
    if array.dtype != dtype:
        raise RunError(
            f"{kind} '{spec.name}' has type {array.dtype}, but the model needs {spec.dtype.label}",
            _format_hint(spec) or f"convert it: array.astype('{spec.dtype.label}')",
        )
    if array.shape != spec.shape:
        raise RunError(
            f"{kind} '{spec.name}' has shape {array.shape}, but the model needs {spec.shape}",
            _format_hint(spec) or "an image has fixed shapes: reshape the array, or compile for its shape",
        )
    return array


def _format_hint(spec: TensorSpec) -> str:
    """What the bytes of a frame or of raw data must be."""
    if spec.format == "YUV_NV12":
        return f"a frame in YUV_NV12: {spec.shape[1] * 2 // 3} rows of Y, then the rows of U and V in turn"
    return f"the bytes are {spec.format}, not normalised" if spec.format else ""


def _specs(tensors: Any, count: int) -> tuple[TensorSpec, ...]:
    """Specifications of ``count`` C tensors."""
    return tuple(
        TensorSpec(
            t.name.decode(), tuple(t.shape[: t.rank]), DType(t.dtype), t.format.decode(), t.scale, t.zero
        )
        for t in tensors[:count]
    )


def _metadata_text(load: ctypes.CDLL, image: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    address = load.tvm_ipu_image_metadata(image, ctypes.byref(size))
    return ctypes.string_at(address, size.value) if address else b""


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(map(str, specs)) or "none"
