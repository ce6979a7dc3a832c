"""Calibration of whole networks, and what can go wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from scripts.node_suite import compile_image
from tests.passes.test_to_integer import SHAPE, network
from tests.quantize.quantize_kit import make_graph, run, sqnr
from tvm_ipu.base.contract import Contract, ConvConfig, InputContract
from tvm_ipu.base.errors import CalibrationError, OptionError
from tvm_ipu.base.graph import Graph
from tvm_ipu.base.ranges import TensorRange
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.runtime.session import Session

GRAPH = load_graph(network())


def samples(count: int = 6) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(5)
    return [{"x": random.normal(size=SHAPE).astype(np.float32)} for _ in range(count)]


def source(count: int = 6):
    return lambda: iter(samples(count))


def picture(**changes) -> Contract:
    port = InputContract("x", "RGB", "RGB", mean=(127.0,) * 3, std=(64.0,))
    return Contract(inputs=(replace(port, **changes),))


def error(quantised: Graph) -> float:
    test = {"x": np.random.default_rng(77).normal(size=SHAPE).astype(np.float32)}
    return sqnr(run(GRAPH)(test)["y"], run(quantised)(test)["y"])


@pytest.mark.parametrize(
    ("level", "least"),
    [("L1", 26), ("L2", 26), ("L3", 26), ("L4", 30), ("L5", 30), ("Q10", 50), ("Q11", 26), ("Q12", 30)],
)
def test_levels(level: str, least: float):
    quantised, table = calibrate(GRAPH, source(), run, CalibrationOptions(level=level))
    assert error(quantised) > least
    assert table.facts["samples"] == 6
    bits = {one.bits for one in table.ranges.values()}
    assert bits == ({16} if level == "Q10" else {8, 16} if table.facts.get("promoted") else {8})


def test_memory_saving_and_workers_change_nothing(monkeypatch):
    monkeypatch.setattr("tvm_ipu.quantize.collect.SAVING_BYTES", 20000)
    made = []

    def counting(graph: Graph):
        made.append(len(graph.outputs))
        return run(graph)

    plain = calibrate(GRAPH, source(), run, CalibrationOptions(level="L3"))
    for options in (CalibrationOptions("L3", num_process=3), CalibrationOptions("L3", memory_saving=True)):
        made.clear()
        graph, table = calibrate(GRAPH, source(), counting, options)
        assert table.ranges == plain[1].ranges
        assert graph_to_onnx(graph) == graph_to_onnx(plain[0])
    assert len(made) > 2


def test_an_interrupted_calibration_goes_on(tmp_path: Path, caplog):
    path = tmp_path / "calibration"
    options = CalibrationOptions("L3", checkpoint=path)
    runs = []

    def counted(graph: Graph):
        function = run(graph)
        return lambda feed: runs.append(1) or function(feed)

    def interrupted() -> Iterator[dict[str, np.ndarray]]:
        yield from samples()[:4]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(GRAPH, interrupted, counted, options)
    assert path.exists()
    assert len(runs) == 4
    with caplog.at_level(logging.WARNING):
        _, table = calibrate(GRAPH, source(), counted, options)
    assert "goes on after 4 samples" in caplog.text
    assert len(runs) == 6
    assert not path.exists()
    assert table.ranges == calibrate(GRAPH, source(), run, CalibrationOptions("L3"))[1].ranges


def test_other_samples_than_the_checkpoints_are_refused(tmp_path: Path):
    path = tmp_path / "calibration"

    def interrupted() -> Iterator[dict[str, np.ndarray]]:
        yield from samples()[3:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(GRAPH, interrupted, run, CalibrationOptions("L1", checkpoint=path))
    with pytest.raises(CalibrationError, match="sample number 1 is another one"):
        calibrate(GRAPH, source(), run, CalibrationOptions("L1", checkpoint=path))
    path.write_bytes(path.read_bytes()[:100])
    calibrate(GRAPH, source(), run, CalibrationOptions("L1", checkpoint=path))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "sample 'b.jpg': input 'x' holds NaN"),
        (np.inf, "sample 'b.jpg': input 'x' holds an infinite number"),
    ],
)
def test_samples_with_nan_or_infinity(value: float, message: str):
    bad = samples(3)
    bad[1]["x"][0, 1, 2, 3] = value
    options = CalibrationOptions("L1", sample_names=("a.jpg", "b.jpg", "c.jpg"))
    with pytest.raises(CalibrationError, match=message):
        calibrate(GRAPH, lambda: iter(bad), run, options)


def test_tensors_that_overflow_are_named():
    graph = make_graph(
        [("Exp", ("x",), "large"), ("Relu", ("large",), "y")], {}, {"x": (1, 4)}, {"y": (1, 4)}
    )
    feeds = [{"x": np.full((1, 4), value, np.float32)} for value in (1, 100)]
    with pytest.raises(CalibrationError, match="sample number 2: tensor 'y' holds an infinite number"):
        calibrate(graph, lambda: iter(feeds), run, CalibrationOptions("L1"))


def test_samples_that_do_not_fit():
    with pytest.raises(CalibrationError, match="no samples"):
        calibrate(GRAPH, lambda: iter([]), run, CalibrationOptions("L1"))
    with pytest.raises(CalibrationError, match="has no input 'x'"):
        calibrate(GRAPH, lambda: iter([{"z": np.zeros(3)}]), run, CalibrationOptions("L1"))
    with pytest.raises(CalibrationError, match=r"shape \[1, 2\].*takes \[1, 3, 32, 32\]"):
        calibrate(GRAPH, lambda: iter([{"x": np.zeros((1, 2))}]), run, CalibrationOptions("L1"))
    with pytest.raises(OptionError, match="'L9' is not allowed"):
        calibrate(GRAPH, source(), run, CalibrationOptions("L9"))


def test_pictures_get_the_grid_of_their_pixels():
    quantised, _ = calibrate(GRAPH, source(1), run, CalibrationOptions("L1"), picture())
    assert quantised.constants["x/scale"] == np.float32(1 / 64)
    assert quantised.constants["x/zero"] == 127


def test_raw_inputs():
    raw = {"mean": (), "std": ()}
    _, table = calibrate(
        GRAPH, source(1), run, CalibrationOptions("L1"), picture(input_format="RAWDATA_S16_NHWC", **raw)
    )
    assert table.ranges["x"].bits == 16
    quantised, _ = calibrate(
        GRAPH, source(1), run, CalibrationOptions("L1"), picture(input_format="RAWDATA_U8_NHWC", **raw)
    )
    assert (quantised.constants["x/scale"], quantised.constants["x/zero"]) == (1, 0)


@pytest.mark.parametrize(
    ("config", "wide"),
    [
        (ConvConfig("ALL_INT16"), {"w2", "w3", "w4", "w5"}),
        (ConvConfig("DEPTHWISE_INT16"), {"w2"}),
        (ConvConfig("CONV2D_INT16"), {"w3", "w4", "w5"}),
        (ConvConfig("", ("relu6",)), {"w3"}),
        (ConvConfig("", ("x",)), set()),
    ],
)
def test_configured_convolutions(config: ConvConfig, wide: set[str]):
    _, table = calibrate(GRAPH, source(1), run, CalibrationOptions("L1"), replace(picture(), conv=config))
    assert {name for name, one in table.ranges.items() if one.bits == 16 and name in GRAPH.constants} == wide
    wrong = replace(picture(), conv=ConvConfig("", ("nothing",)))
    with pytest.raises(OptionError, match="'nothing' is not the first input"):
        calibrate(GRAPH, source(1), run, CalibrationOptions("L1"), wrong)


def test_operands_of_a_concatenation_share_its_grid():
    graph = make_graph(
        [("Relu", ("x",), "a"), ("Sigmoid", ("x",), "b"), ("Concat", ("a", "b"), "y", {"axis": 0})],
        {},
        {"x": (2, 8)},
        {"y": (4, 8)},
    )
    feed = {"x": np.linspace(-4, 4, 16, dtype=np.float32).reshape(2, 8)}
    _, table = calibrate(graph, lambda: iter([feed]), run, CalibrationOptions("L1"))
    assert table.ranges["a"].high == table.ranges["b"].high == table.ranges["y"].high == (4.0,)


def test_imported_parameters_win():
    imported = (TensorRange("relu", (0.0,), (2.5,), 16), TensorRange("w3", (), (), 4))
    options = CalibrationOptions("L1", parameters=imported)
    quantised, table = calibrate(GRAPH, source(1), run, options)
    assert table.ranges["relu"] == imported[0]
    assert table.ranges["w3"].bits == 4
    assert quantised.constants["relu/scale"] == np.float32(2.5 / 32767)
    assert quantised.constants["w3/integers"].dtype == ml_dtypes.int4


@pytest.mark.parametrize("level", ["Q10", "L1"])
def test_functions_of_sums_with_16_bits_read_16_bits(level: str):
    parameters = () if level == "Q10" else (TensorRange("swish", (), (), 16),)
    quantised, table = calibrate(GRAPH, source(2), run, CalibrationOptions(level, parameters=parameters))
    assert table.ranges["groups"].bits == 16
    with Session(compile_image(onnx.load_from_string(graph_to_onnx(quantised)), {}, "host")) as session:
        assert session.metadata["float_layers"] == []
    assert error(quantised) > 26
