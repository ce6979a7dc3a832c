"""Tuning: real runs on a small model, and what is compared and recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ipu
from tests.unit.tune_kit import record
from tvm_ipu.base.errors import TargetError
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.target import load_target
from tvm_ipu.cli.main import main
from tvm_ipu.driver import compile_model, list_tasks, tune_model
from tvm_ipu.kernels.templates import gemm
from tvm_ipu.tune import reference
from tvm_ipu.tune.measure import Effort
from tvm_ipu.tune.records import as_json, read_records, write_records
from tvm_ipu.tune.reference import expected_outputs, is_close
from tvm_ipu.tune.search import Limits
from tvm_ipu.tune.tasks import task_inputs
from tvm_ipu.tune.tuner import TuneOptions, select_tasks
from tvm_ipu.tune.whole import Whole

QUICK = TuneOptions(
    limits=Limits(trials=4, batch=3, tuner="random"), effort=Effort((1,), repeat=2, evict=1), timeout=60
)


def test_comparison_of_outputs():
    ones = np.ones(4, np.float32)
    assert is_close(ones + np.float32(1e-5), ones)
    assert not is_close(ones * 1.01, ones)
    assert not is_close(np.array([1, 1, 1, np.nan], np.float32), ones)
    assert is_close(np.array([1, np.nan], np.float32), np.array([1, np.nan], np.float32))
    assert not is_close(np.array([1, 2], np.int8), np.array([1, 3], np.int8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A convolution, another one and a dense layer."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.standard_normal((32, 8, 3, 3)),
        "w2": rng.standard_normal((64, 32, 1, 1)),
        "w3": rng.standard_normal((64, 10)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second"),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "w3"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 8, 14, 14))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 10))],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    path = tmp_path_factory.mktemp("tune") / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run(image):
    x = np.random.default_rng(1).standard_normal((1, 8, 14, 14)).astype(np.float32)
    with tvm_ipu.Session(image) as session:
        return session.run({"x": x})["y"]


def test_compile_uses_records(model, tmp_path, capfd):
    tasks = list_tasks(model, "host")
    assert [task.template for task in tasks][:2] == ["conv2d", "gemm"]
    target = tvm_ipu.load_target("host")
    second = tasks[1]
    chosen = record(
        second.decisions[-1], second.problem, target=target.name, cores=target.cores, template="gemm"
    )
    path = tmp_path / "r.jsonl"
    write_records(path, [chosen])
    plain = compile_model(
        model, "host", tmp_path / "plain.img", options=CompileOptions(shipped_records=False)
    )
    tuned = compile_model(model, "host", tmp_path / "t.img", options=CompileOptions(tuning_records=(path,)))
    assert (plain.tuned, tuned.tuned) == (0, 1)
    assert plain.program.code != tuned.program.code
    np.testing.assert_allclose(run(tuned.image), run(plain.image), rtol=1e-4)
    write_records(path, [replace(chosen, cores=77)])
    assert main(["compile", str(model), "--tuning-records", str(path), "-o", str(tmp_path / "c.img")]) == 0
    assert "no record is for this model" in capfd.readouterr().err


def test_definitions_that_take_long_are_computed_in_part(model, monkeypatch):
    task = list_tasks(model, "host")[0]
    inputs = task_inputs(task)
    (whole,) = expected_outputs(task, inputs)
    monkeypatch.setattr(reference, "MAX_STEPS", 100_000)
    (part,) = expected_outputs(task, inputs)
    assert 0 < part.shape[-1] < whole.shape[-1] == 32
    np.testing.assert_array_equal(part, whole[..., : part.shape[-1]])


@pytest.mark.slow
def test_tune_records_and_resumes(model, tmp_path):
    output = tmp_path / "r.jsonl"
    report = tune_model(model, "host", output, tuning=QUICK)
    assert not report.interrupted
    tasks = [progress for progress in report.tasks if len(progress.task.decisions) > 1]
    assert all(progress.result and not progress.wrong for progress in tasks)
    written = {record.key: record for record in read_records(output, pytest.fail)}
    assert written.keys() == {progress.task.key for progress in tasks}
    for progress in tasks:
        record = written[progress.task.key]
        assert record.trials == progress.trials
        if record.gain == 0:
            assert record.decision == as_json(progress.task.decisions[0])
    again = tune_model(model, "host", output, tuning=QUICK)
    assert all(progress.result is None and progress.done for progress in again.tasks)
    assert {r.key: r.trials for r in read_records(output, pytest.fail)} == {
        key: one.trials for key, one in written.items()
    }
    further = replace(QUICK, limits=replace(QUICK.limits, trials=6), tasks=("0",))
    (continued,) = tune_model(model, "host", output, tuning=further).tasks
    assert continued.trials == 6
    compile_model(model, "host", tmp_path / "t.img", options=CompileOptions(tuning_records=(output,)))


@pytest.mark.slow
def test_gains_of_an_interrupted_run_have_to_show_in_the_model(model, tmp_path, monkeypatch):
    """The last step of a run checks all gains that are recorded, whatever tasks it tunes itself."""
    first, second, *_ = list_tasks(model, "host")
    output = tmp_path / "r.jsonl"
    target = load_target("host")
    write_records(
        output,
        [
            replace(
                record(first.decisions[1]),
                template=first.template,
                problem=as_json(first.problem),
                target=target.machine,
                cores=target.cores,
                gain=0.5,
            )
        ],
    )
    checked = []

    def check(tasks, *_):
        checked.extend(task.key for task in tasks)
        return Whole({1: (1.0, 1.0)}, frozenset(), frozenset(task.key for task in tasks))

    monkeypatch.setattr("tvm_ipu.tune.tuner.check_whole", check)
    options = replace(QUICK, tasks=("1",), limits=replace(QUICK.limits, trials=1))
    (found,) = tune_model(model, "host", output, tuning=options).tasks
    assert found.task.key == second.key
    assert checked == [first.key]
    assert {r.template: r.gain for r in read_records(output, pytest.fail)}[first.template] == 0.0


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_found(model, tmp_path):
    output = tmp_path / "r.jsonl"
    command = [sys.executable, "-m", "tvm_ipu", "-v", "tune", model, "-o", output, "--tuner", "random"]
    with subprocess.Popen(
        [*map(str, command), "--trials", "1000", "--early-stopping", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as tuning:
        for line in tuning.stderr:
            if line.startswith("gemm"):
                break
        os.killpg(tuning.pid, signal.SIGINT)
        printed, _ = tuning.communicate(timeout=60)
    assert tuning.returncode == 130
    assert "what was found is kept" in printed
    assert len(read_records(output, pytest.fail)) == 2


FAULTS = {
    "forgets a unit": (1, lambda extent: extent - 1, 4, 60, {"output 0 is wrong with 1 threads"}),
    "writes beyond its output": (1 << 16, lambda extent: extent, 3, 60, {"Subprocess terminated"}),
    "goes on and on": (1, lambda extent: (1 << 31) - 1, 2, 5, {"it took too long", "Subprocess terminated"}),
}
"""What a faulty kernel does -> how many times too many rows it takes, its number of units; trials, timeout,
and what may be said about it."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_kernel_is_never_recorded(model, tmp_path, monkeypatch, fault):
    rows, extent, trials, timeout, reasons = FAULTS[fault]
    emit = gemm.emit

    def faulty(problem, decision, epilogue, target):
        kernel = emit(problem, decision, epilogue, target)
        if decision == gemm.space(problem, target)[0] or kernel.extent == 1:
            return kernel
        kernel = emit(replace(problem, rows=rows * problem.rows), decision, epilogue, target)
        return replace(kernel, extent=extent(kernel.extent), grain=1)

    monkeypatch.setattr(gemm, "emit", faulty)
    options = replace(QUICK, tasks=("1",), timeout=timeout, limits=replace(QUICK.limits, trials=trials))
    (found,) = tune_model(model, "host", tmp_path / "r.jsonl", tuning=options).tasks
    assert found.task.template == "gemm"
    assert found.trials == trials
    assert found.wrong
    assert {why for _, why in found.wrong} <= reasons
    failed = [decision for decision, _ in found.wrong]
    assert found.best not in failed
    (record,) = read_records(tmp_path / "r.jsonl", pytest.fail)
    assert record.decision not in [as_json(decision) for decision in failed]


@pytest.mark.slow
def test_tuning_through_the_rpc_tracker(model, tmp_path, capsys):
    from tvm.rpc.server import Server
    from tvm.rpc.tracker import Tracker

    tracker = Tracker(host="127.0.0.1", port=19190, port_end=19290)
    try:
        server = Server(host="127.0.0.1", tracker_addr=("127.0.0.1", tracker.port), key="board", silent=True)
        output = tmp_path / "r.jsonl"
        words = ["tune", str(model), "--tasks", "0", "--trials", "3", "--tuner", "random", "--repeat", "2"]
        words += ["--rpc-tracker", f"127.0.0.1:{tracker.port}", "--rpc-key", "board", "-o", str(output)]
        assert main(words) == 0
        server.terminate()
    finally:
        tracker.terminate()
    (record,) = read_records(output, pytest.fail)
    assert record.trials == 3
    assert all(time > 0 for pair in record.microseconds.values() for time in pair)
    assert "enough trials" in capsys.readouterr().out


def test_mistakes_are_explained(model, tmp_path, capsys):
    def error(*words):
        assert main(["tune", str(model), "-o", str(tmp_path / "r.jsonl"), *words]) == 1
        return capsys.readouterr().err

    assert "is not of the form HOST:PORT" in error("--rpc-tracker", "localhost")
    assert "needs --rpc-key" in error("--rpc-tracker", "localhost:1")
    assert "no --rpc-tracker" in error("--rpc-key", "k")
    assert "say --repeat instead" in error("--number", "3")
    assert "layouts are not a choice" in error("--desired-layout", "NCHW")
    assert "no task is called 'nothing'" in error("--tasks", "nothing")
    with pytest.raises(TargetError, match="this machine cannot run code for 'riscv64'"):
        tune_model(model, "riscv64", tmp_path / "r.jsonl", tuning=QUICK)


def test_tasks_are_listed_and_picked(model, capsys):
    assert main(["tune", str(model), "--tasks", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[2:4]] == ["conv2d", "gemm"]
    tasks = list_tasks(model, "host")
    assert select_tasks(tasks, ()) == tasks
    assert select_tasks(tasks, ("1", "conv2d")) == [tasks[1], tasks[0]]
    assert select_tasks(tasks, ("gemm second*",)) == [tasks[1]]
