"""Networks in segments through the interface of the SigmaStar toolchain's module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tvm_ipu.calibrator_custom as calibrator_custom
from tests.simulate.kit import CLASSES, CONTRACT, PICTURE, network, normalised, pixels
from tvm_ipu.base.contract import Contract, InputContract, OutputContract
from tvm_ipu.base.errors import OptionError, RunError
from tvm_ipu.driver import compile_model
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph
from tvm_ipu.image.stage import FLOAT, Stage, read_stage, write_stage
from tvm_ipu.samples.raw import to_raw

Array = np.ndarray
SECOND = Contract(
    tuple(InputContract(name, "RAWDATA_F32_NHWC", "RAWDATA_F32_NHWC") for name in ("planar", "gains")),
    (OutputContract("scaled"),),
)


def proposals(main: Array) -> Array:
    """What no network does here: gains by sorting, in Python."""
    return np.sort(main, 1)[:, ::-1].astype(np.float32)


def second_segment() -> bytes:
    """A dense layer of both its inputs."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(3)
    weight = random.normal(size=(CLASSES, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["planar", "w"], ["dense"]),
        helper.make_node("Add", ["dense", "gains"], ["scaled"]),
    ]
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CLASSES])
        for name in ("planar", "gains", "scaled")
    }
    graph = helper.make_graph(
        nodes,
        "second",
        [infos["planar"], infos["gains"]],
        [infos["scaled"]],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("segments")
    first = load_graph(network(), LoadOptions())
    write_stage(Stage(FLOAT, graph_to_onnx(first), CONTRACT, "host"), made / "main_float.sim")
    second = load_graph(second_segment())
    write_stage(Stage(FLOAT, graph_to_onnx(second), SECOND, "host"), made / "second_float.sim")
    return made


def forward(main, second, x: Array) -> list[Array]:
    """Both segments, as either kind of network runs them."""
    main.set_input(0, x)
    main.invoke()
    found = main.get_output(0)
    second.set_input(0, found)
    second.set_input(1, proposals(found))
    second.invoke()
    return [second.get_output(index) for index, _ in enumerate(second.get_output_details())]


class Calibrated(calibrator_custom.SIM_Calibrator):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.main_model = calibrator_custom.calibrator(folder / "main_float.sim")
        self.second_model = calibrator_custom.calibrator(folder / "second_float.sim")

    def forward(self, x: Array) -> list[Array]:
        return forward(self.main_model, self.second_model, x)


class Simulated(calibrator_custom.SIM_Simulator):
    def __init__(self, folder: Path, phase: str) -> None:
        super().__init__()
        kind = {"Float": "float.sim", "Fixed": "fixed.sim", "Offline": "fixed.img"}[phase]
        open_one = getattr(calibrator_custom, f"{phase.lower()}_simulator")
        self.main_model, self.second_model = (open_one(folder / f"{n}_{kind}") for n in ("main", "second"))

    def forward(self, x: Array) -> list[Array]:
        return forward(self.main_model, self.second_model, x)


def generator(seed: int, raw: bool = False) -> Iterator[list[Array]]:
    for picture in pixels(4, seed):
        yield [to_raw(picture, PICTURE) if raw else normalised(picture)]


@pytest.fixture(scope="module")
def calibrated(folder: Path) -> Path:
    net = Calibrated(folder)
    fixed = [folder / "main_fixed.sim", folder / "second_fixed.sim"]
    net.convert(generator(1), fix_model=fixed, num_process=2, quant_level="L2")
    for path in fixed:
        compile_model(path, "host", path.with_suffix(".img"))
    return folder


def test_two_segments_are_calibrated_and_simulated(calibrated: Path) -> None:
    floating = Simulated(calibrated, "Float")(generator(2))
    fixed = Simulated(calibrated, "Fixed")(generator(2, raw=True), num_process=2)
    offline = Simulated(calibrated, "Offline")(generator(2, raw=True))
    for a, b, c in zip(floating, fixed, offline, strict=True):
        assert b[0].tobytes() == c[0].tobytes()
        assert np.abs(a[0] - b[0]).max() < 0.08 * np.abs(a[0]).max()


class Repeated(Calibrated):
    """Runs the second segment more than once, as a network does that looks at each of its proposals."""

    def forward(self, x: Array) -> list[Array]:
        found = super().forward(x)
        for _ in range(1 + int(x[0, 0, 0, 0] > 0)):
            self.second_model.set_input(1, found[0] / 2)
            self.second_model.invoke()
        return found


def test_number_of_processes_changes_nothing(folder: Path, tmp_path: Path) -> None:
    made = []
    for count in (1, 2, 3):
        paths = [tmp_path / f"{name}_{count}.sim" for name in ("main", "second")]
        Repeated(folder).convert(generator(3), fix_model=paths, num_process=count, quant_level="L3")
        made.append([path.read_bytes() for path in paths])
    assert made[0] == made[1] == made[2]
    seen = [read_stage(path).metadata["samples"] for path in paths]
    assert seen[0] == 4
    assert seen[1] > 4


def test_samples_run_side_by_side(folder: Path) -> None:
    class Meeting(calibrator_custom.SIM_Simulator):
        """A sample ends when two of them have begun."""

        def __init__(self) -> None:
            self.barrier = get_context("fork").Barrier(2)

        def forward(self, x: Array) -> int:
            self.barrier.wait(60)
            return int(x[0])

    assert Meeting()(([np.array([n])] for n in range(4)), num_process=2) == [0, 1, 2, 3]


def test_a_process_that_ends(folder: Path) -> None:
    class Ending(calibrator_custom.SIM_Simulator):
        def forward(self, x: Array) -> None:
            os._exit(3)

    with pytest.raises(RunError, match=r"2 processes ended before its sample was done .with num_process=1"):
        Ending()([[np.zeros(1)]], num_process=2)


def test_ranges_are_those_of_what_forward_feeds(calibrated: Path) -> None:
    first, second = (read_stage(calibrated / f"{name}_fixed.sim") for name in ("main", "second"))
    model = calibrator_custom.float_simulator(calibrated / "main_float.sim")
    seen = []
    for (x,) in generator(1):
        model.set_input(0, x)
        model.invoke()
        seen.append(model.get_output(0))
    low, high = min(map(np.min, seen)), max(map(np.max, seen))
    found = second.ranges.ranges["gains"]
    assert found.low[0] == pytest.approx(min(low, 0), rel=0.02)
    assert found.high[0] == pytest.approx(high, rel=0.02)
    assert first.metadata["samples"] == second.metadata["samples"] == 4


def test_details_have_the_names_of_the_reference(folder: Path) -> None:
    model = calibrator_custom.calibrator(folder / "main_float.sim")
    (one,) = model.get_input_details()
    assert set(one) == {"index", "shape", "name", "dtype"}
    assert (one["name"], one["dtype"], one["shape"].dtype) == ("x", np.float32, np.int32)
    details = {one["name"]: one for one in model.get_tensor_details()}
    assert details["first"]["qtype"] == "UINT8"
    assert details["w0"]["qtype"] == "INT8"
    assert details["a"]["qtype"] == "FLOAT32"
    assert set(details["first"]) == {"dtype", "name", "shape", "qtype"}


def test_mistakes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Calibrated(folder)
    with pytest.raises(OptionError, match="1 files for 2 models"):
        net.convert(generator(1), fix_model=["x.sim"])
    with pytest.raises(OptionError, match="there are no samples"):
        net.convert([], fix_model=[folder / "a.sim", folder / "b.sim"])
    with pytest.raises(NotImplementedError, match="forward"):
        calibrator_custom.SIM_Calibrator().forward()
    with pytest.raises(RunError, match="was not set"):
        net.main_model.invoke()
    monkeypatch.setattr(calibrator_custom, "_chosen", [])
    calibrator_custom.set_soc_version("ipu-ref")
    assert calibrator_custom.calibrator(folder / "main_float.sim").stage.target == "ipu-ref"
    with pytest.raises(OptionError, match="call it once"):
        calibrator_custom.set_soc_version("ipu-ref")


def test_a_failing_forward_leaves_the_models_usable(folder: Path) -> None:
    net = Calibrated(folder)
    for count in (1, 2):
        with pytest.raises(RunError, match="input 'x' is float32"):
            net.convert(
                [[np.zeros((1, 2), np.float32)]],
                fix_model=[folder / "a.sim", folder / "b.sim"],
                num_process=count,
            )
    assert not (folder / "a.sim").exists()
    assert net.forward(*next(generator(1)))[0].shape == (1, CLASSES)


def test_preprocess_functions(tmp_path: Path) -> None:
    picture = pixels(1)[0][0]
    Image.fromarray(picture).save(tmp_path / "p.png")
    function = calibrator_custom.utils.image_preprocess_func("letterbox:16")
    assert function(tmp_path / "p.png").dtype == np.float32
    raw = function(tmp_path / "p.png", norm=False)
    assert np.array_equal(raw[0, 2:14], picture)
    (tmp_path / "own.py").write_text(
        "import numpy as np\ndef image_preprocess(path, norm=True): return np.ones((2, 3), 'float32')\n"
    )
    own = calibrator_custom.utils.image_preprocess_func(str(tmp_path / "own.py"))
    assert own(str(tmp_path / "p.png")).shape == (2, 3)
    with pytest.raises(OptionError, match="has no size"):
        calibrator_custom.utils.image_preprocess_func("classification")
