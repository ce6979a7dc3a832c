"""Runs ONNX's node test cases: each is compiled into an image, and the C runtime runs the image.

Inputs whose values decide an output's shape (``CONSTANT_INPUTS``) become constants with the case's values, as
images have static shapes. Every case then passes, is refused with a reason, or has failed.
"""

from __future__ import annotations

import argparse
import json
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from scripts import supported_ops
from scripts.supported_ops import Result
from tvm_ipu.base.errors import ModelError, TvmIpuError
from tvm_ipu.base.target import Target, load_target
from tvm_ipu.frontends.onnx.evaluate import RANDOM

Array = NDArray[Any]

CONSTANT_INPUTS: dict[str, tuple[str, ...]] = {
    "AffineGrid": ("size",),
    "BlackmanWindow": ("size",),
    "CenterCropPad": ("shape",),
    "Col2Im": ("image_shape", "block_shape"),
    "Compress": ("condition",),
    "ConstantOfShape": ("input",),
    "CumProd": ("axis",),
    "CumSum": ("axis",),
    "DFT": ("dft_length", "axis"),
    "Dropout": ("ratio", "training_mode"),
    "Expand": ("shape",),
    "HammingWindow": ("size",),
    "HannWindow": ("size",),
    "Loop": ("M", "cond"),
    "MaxUnpool": ("output_shape",),
    "MelWeightMatrix": (
        "num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz"
    ),
    "OneHot": ("depth",),
    "Pad": ("pads", "axes"),
    "Range": ("start", "limit", "delta"),
    "Reshape": ("shape",),
    "Resize": ("roi", "scales", "sizes"),
    "STFT": ("frame_step", "frame_length"),
    "SequenceAt": ("position",),
    "SequenceErase": ("position",),
    "SequenceInsert": ("position",),
    "Slice": ("starts", "ends", "axes", "steps"),
    "Split": ("split",),
    "SplitToSequence": ("split",),
    "Squeeze": ("axes",),
    "Tile": ("repeats",),
    "TopK": ("K",),
    "Unsqueeze": ("axes",),
    "Upsample": ("scales",),
    **{
        f"Reduce{name}": ("axes",)
        for name in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
    },
}  # fmt: skip
"""Inputs, by operator, whose value decides shapes."""

TIMEOUT = 180.0
"""Seconds that one case may take before its worker is stopped."""


def load_cases(pattern: str = "") -> list[Any]:
    """ONNX's node cases whose names ``pattern`` is found in, without those of expanded functions."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    return [c for c in cases if "_expanded" not in c.name and re.search(pattern, c.name)]


def run_case(case: Any, target: str) -> Result:
    """Compile one case and compare its results."""
    op = case.model.graph.node[-1].op_type
    result = Result(case.name, op, "refused", numeric=_is_numeric(case.model))
    feeds = _as_arrays(case.model.graph.input, case.data_sets[0][0])
    if any(value is None for value in feeds.values()):
        return replace(result, detail="an optional input is absent: images are compiled for present ones")
    fixed = {name: feeds[name] for name in inputs_to_fix(case.model) if name in feeds}
    result = replace(result, fixed=tuple(fixed))
    try:
        image = compile_image(case.model, fixed, target)
    except TvmIpuError as err:
        if isinstance(err, ModelError):
            return replace(result, detail=reason(err.message))
        return replace(result, status="failed", detail=str(err))
    except Exception as err:
        return replace(result, status="failed", detail=f"{type(err).__name__}: {err}")
    return _compare(case, image, fixed, result)


def _is_numeric(model: ModelProto) -> bool:
    """Whether a model takes and gives tensors of numbers only, and chance has no part in it."""
    graph = model.graph
    kinds = [info.type for info in (*graph.input, *graph.output)]
    tensors = all(
        kind.WhichOneof("value") == "tensor_type" and kind.tensor_type.elem_type != TensorProto.STRING
        for kind in kinds
    )
    chance = any(n.op_type in RANDOM or (n.op_type == "Dropout" and len(n.input) > 2) for n in graph.node)
    return tensors and not chance


def inputs_to_fix(model: ModelProto) -> list[str]:
    """Graph inputs that decide shapes."""
    versions = {o.domain: o.version for o in model.opset_import}
    names = []
    for node in model.graph.node:
        wanted = CONSTANT_INPUTS.get(node.op_type, ()) if node.domain == "" else ()
        if not wanted:
            continue
        schema = onnx.defs.get_schema(node.op_type, versions.get("", 1), "")
        formal = [i.name for i in schema.inputs]
        names += [n for f, n in zip(formal, node.input, strict=False) if f in wanted and n]
    return names


def compile_image(model: ModelProto, constants: Mapping[str, Array], target: str | Target) -> bytes:
    """The image of a model in memory, for a target or the one of that name."""
    from tvm_ipu.base.options import CompileOptions
    from tvm_ipu.codegen.build import build_program
    from tvm_ipu.frontends.loaders import LoadOptions, load_model
    from tvm_ipu.image.writer import write_image
    from tvm_ipu.passes.pipeline import run_phases

    chip = load_target(target) if isinstance(target, str) else target
    loaded = load_model(model, LoadOptions(constants=constants))
    module = run_phases(loaded.module, chip, CompileOptions())
    with tempfile.TemporaryDirectory(prefix="node-suite-") as folder:
        path = Path(folder) / "case.img"
        write_image(build_program([loaded.with_module(module)], chip), path)
        return path.read_bytes()


def reason(message: str) -> str:
    """A refusal without the names of nodes, so that equal reasons look equal."""
    found = re.findall(r"^  (\S+) '.*?': (.*)$", message, re.MULTILINE)
    if found:
        return "; ".join(dict.fromkeys(f"{op}: {why}" for op, why in found))
    return re.sub(r"'.*?'", "...", message, count=1)


def _as_arrays(infos: Sequence[Any], values: Sequence[Any]) -> dict[str, Any]:
    arrays = {}
    for info, value in zip(infos, values, strict=False):
        if isinstance(value, TensorProto):
            value = numpy_helper.to_array(value)
        arrays[info.name] = np.asarray(value) if isinstance(value, np.ndarray | np.generic) else value
    return arrays


def _compare(case: Any, image: bytes, fixed: Mapping[str, Array], result: Result) -> Result:
    from tvm_ipu.runtime.session import Session

    exact = False
    with Session(image) as session:
        for inputs, outputs in case.data_sets:
            feeds = _as_arrays(case.model.graph.input, inputs)
            names = {spec.name for spec in session.inputs}
            try:
                got = session.run({name: feeds[name] for name in names})
            except (TvmIpuError, KeyError) as err:
                return replace(result, status="failed", detail=f"run: {err}")
            expected = _as_arrays(case.model.graph.output, outputs)
            wrong = _mismatch(got, expected, case)
            if wrong and not exact:
                wrong = _mismatch(got, _in_float64(case, feeds, expected), case) and wrong
                exact = not wrong
            if wrong:
                return replace(result, status="failed", detail=wrong)
    return replace(result, status="passed", exact=exact)


def _mismatch(got: Mapping[str, Array], expected: Mapping[str, Array], case: Any) -> str:
    """How the results differ; empty where they agree within the case's own tolerances."""
    for name, want in expected.items():
        have = got[name]
        if have.dtype != want.dtype or have.shape != want.shape:
            return f"{name}: {have.dtype}{list(have.shape)}, expected {want.dtype}{list(want.shape)}"
        inexact = want.dtype.kind in "fV"
        a, b = (v.astype(np.float64) if inexact else v for v in (have, want))
        close = np.isclose(a, b, case.rtol, case.atol, equal_nan=True) if inexact else a == b
        if not close.all():
            at = tuple(int(i) for i in np.argwhere(~close)[0])
            return f"{name}: {int((~close).sum())} of {a.size} differ, at {at} {a[at]} instead of {b[at]}"
    return ""


def _in_float64(case: Any, feeds: Mapping[str, Any], expected: Mapping[str, Array]) -> Mapping[str, Array]:
    """The results of ONNX's reference implementation with floats of 64 bits, rounded once at the end."""
    from onnx.reference import ReferenceEvaluator

    def widen(value: Any) -> Any:
        floating = isinstance(value, np.ndarray) and value.dtype.kind in "fV"
        return value.astype(np.float64) if floating else value

    model = ModelProto()
    model.CopyFrom(case.model)
    for info in (*model.graph.input, *model.graph.output):
        kind = info.type.tensor_type
        if kind.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16):
            kind.elem_type = TensorProto.DOUBLE
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            names = [o.name for o in model.graph.output]
            values = ReferenceEvaluator(model).run(names, {k: widen(v) for k, v in feeds.items()})
            return {
                name: np.asarray(value).astype(expected[name].dtype)
                for name, value in zip(names, values, strict=True)
            }
    except Exception:  # the reference implementation is incomplete and raises errors of all kinds
        return expected


class Worker:
    """A process that runs cases one after the other, so that a crash ends one case only."""

    def __init__(self, target: str) -> None:
        command = [sys.executable, "-m", "scripts.node_suite", "--worker", "--target", target]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put("")

    def run(self, name: str) -> Result | str:
        """The result of a case, or why there is none; the worker is of no use then."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(name + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=TIMEOUT)
        except queue.Empty:
            self.close()
            return f"took more than {TIMEOUT:.0f} s"
        except BrokenPipeError:
            line = ""
        if not line:
            return f"its process ended with code {self._process.wait()}"
        fields = json.loads(line)
        return Result(**{**fields, "fixed": tuple(fields["fixed"])})

    def close(self) -> None:
        """Stop the process."""
        self._process.kill()
        self._process.wait()


def serve(target: str) -> None:
    """Be a worker: read names of cases, print results as lines of JSON."""
    cases = {case.name: case for case in load_cases()}
    for line in sys.stdin:
        result = run_case(cases[line.strip()], target)
        print(json.dumps(asdict(result)), flush=True)


def sweep(cases: Sequence[Any], target: str, jobs: int) -> Iterator[Result]:
    """Results of the cases as they come, from ``jobs`` processes."""
    waiting: queue.Queue[Any] = queue.Queue()
    done: queue.Queue[Result] = queue.Queue()
    for case in cases:
        waiting.put(case)

    def work() -> None:
        worker: Worker | None = None
        while True:
            try:
                case = waiting.get_nowait()
            except queue.Empty:
                break
            worker = worker or Worker(target)
            result = worker.run(case.name)
            if isinstance(result, str):
                worker = None
                result = Result(case.name, case.model.graph.node[-1].op_type, "failed", result)
            done.put(result)
        if worker:
            worker.close()

    for _ in range(jobs):
        threading.Thread(target=work, daemon=True).start()
    for _ in cases:
        yield done.get()


def main() -> int:
    """Run the suite; exit code 1 where a case failed or the documentation is stale."""
    parser = argparse.ArgumentParser(prog="scripts/onnx-node-suite", description=__doc__)
    parser.add_argument("--filter", default="", metavar="REGEX", help="run the cases whose name matches")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--target", default="host", help="target whose images this machine can run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results")
    parser.add_argument("--check", action="store_true", help="compare docs/SUPPORTED_OPS.md, do not write it")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(args.target)
        return 0
    cases = load_cases(args.filter)
    start, results = time.monotonic(), []
    for result in sweep(cases, args.target, args.jobs):
        results.append(result)
        if result.status == "failed" or args.filter:
            print(f"{result.status.upper():8}{result.name}: {result.detail}".rstrip(": "), flush=True)
    order = {case.name: i for i, case in enumerate(cases)}
    results.sort(key=lambda r: order[r.name])
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n", encoding="utf-8")
    passed, refused, failed = (
        sum(r.status == status for r in results) for status in ("passed", "refused", "failed")
    )
    fresh = args.filter != "" or supported_ops.update(results, check=args.check)
    print(f"{passed} passed, {refused} refused, {failed} failed ({time.monotonic() - start:.0f} s)")
    return 1 if failed or not fresh else 0


if __name__ == "__main__":
    sys.exit(main())
