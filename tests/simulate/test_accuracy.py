"""The comparison of fixed and float models: figures against numpy, the report's files, and mending."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.simulate.kit import INI, network, normalised, pixels, write_fixed, write_float
from tvm_ipu.accuracy import Bound, float_runner, measure, mend, paired, promote, read_models
from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import OptionError
from tvm_ipu.cli.main import main
from tvm_ipu.driver import compile_model
from tvm_ipu.frontends.onnx.plain import graph_from_onnx, graph_to_onnx
from tvm_ipu.image.stage import read_stage, write_stage
from tvm_ipu.simulate.compare import BINS, Comparison

Array = np.ndarray
COUNT = 6
PLAIN = Contract()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages fed pictures (``float.sim``, ``fixed.sim``) and fed arrays (``plain_*.sim``)."""
    made = tmp_path_factory.mktemp("accuracy")
    write_fixed(made / "fixed.sim", write_float(made / "float.sim"))
    write_fixed(made / "plain_fixed.sim", write_float(made / "plain_float.sim", contract=PLAIN), PLAIN)
    (made / "in").mkdir()
    for number, picture in enumerate(pixels(COUNT)):
        Image.fromarray(picture[0]).save(made / "in" / f"{number}.png")
    return made


def accuracy_of(folder: Path) -> list[str]:
    """The command line that compares the fixture's stages."""
    stages = ["-m", str(folder / "float.sim"), "-f", str(folder / "fixed.sim")]
    return ["accuracy", *stages, "-i", str(folder / "in"), "-n", "letterbox"]


def test_figures_are_numpys() -> None:
    random = np.random.default_rng(0)
    one = Comparison("t", "Conv", 8, -1.0, 1.0)
    samples = [random.normal(size=(1, 40)) for _ in range(3)]
    rounded = [np.clip(np.round(s * 127) / 127, -1, 1) for s in samples]
    for number, (a, b) in enumerate(zip(samples, rounded, strict=True)):
        one.add(a, b, number)
    a, b = np.concatenate(samples, 1).ravel(), np.concatenate(rounded, 1).ravel()
    assert one.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert one.sqnr == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()))
    assert one.mse == pytest.approx(((a - b) ** 2).mean())
    assert one.saturated == pytest.approx((np.abs(a) > 1 + 1 / 255).mean())
    assert (one.least, one.most) == (a.min(), a.max())
    ratios = [(s**2).sum() / ((s - r) ** 2).sum() for s, r in zip(samples, rounded, strict=True)]
    assert one.worst[0] == int(np.argmin(ratios))
    expected, _ = np.histogram(np.clip(a, -1, 1 - 1e-12), BINS, (-1, 1))
    assert np.array_equal(one.float_counts, expected)


def test_equal_tensors_are_exact() -> None:
    one = Comparison("t", "Add", 8, 0.0, 1.0)
    one.add(np.ones(3), np.ones(3))
    assert (one.cosine, one.sqnr, one.mse, one.saturated) == (1.0, np.inf, 0.0, 0.0)
    assert one.to_json()["sqnr"] is None


def run(folder: Path, name: str, **options):
    models = read_models(folder / f"{name}float.sim", folder / f"{name}fixed.sim")
    feeds = [{"x": normalised(one)} for one in pixels(COUNT)]
    raw = feeds if name else [{"x": one} for one in pixels(COUNT)]
    names = [f"{n}.png" for n in range(COUNT)]

    floating = float_runner(models)

    def one(models, labels=()):
        return measure(models, floating, paired(feeds, raw, models.contract), names, labels, **options)

    return models, one


def test_tensors_are_compared_with_onnxruntimes(folder: Path) -> None:
    models, one = run(folder, "plain_")
    report = one(models)
    (folder / "fixed.onnx").write_bytes(models.stage.model)
    fixed = onnxruntime.InferenceSession(folder / "fixed.onnx")
    floating = onnxruntime.InferenceSession(network())
    signal = noise = 0.0
    for picture in pixels(COUNT):
        feeds = {"x": normalised(picture)}
        (a,), (b,) = floating.run(None, feeds), fixed.run(None, feeds)
        signal, noise = signal + float((a**2).sum()), noise + float(((a - b) ** 2).sum())
    assert report.outputs[0].sqnr == pytest.approx(10 * np.log10(signal / noise), abs=1.0)
    names = [one.name for one in report.activations]
    assert names == ["x", "first", "second", "sum", "third", "pooled", "scores"]
    assert all(one.elements for one in (*report.activations, *report.weights))
    weight = next(one for one in report.weights if one.name == "w0")
    assert weight.sqnr > 35
    assert weight.operator == "constant"
    assert report.float_layers == []


def test_classes_are_counted(folder: Path) -> None:
    models, one = run(folder, "", classify=True)
    floating = onnxruntime.InferenceSession(network())
    best = [int(floating.run(None, {"x": normalised(p)})[0].argmax()) for p in pixels(COUNT)]
    labels = [*best[:-1], (best[-1] + 1) % 10]
    report = one(models, labels)
    assert report.scores["float"].right[1] == COUNT - 1
    assert report.scores["float"].agreed == COUNT
    assert report.scores["fixed"].samples == COUNT
    assert report.drop == 100 * (report.scores["float"].share(1) - report.scores["fixed"].share(1))


def test_sixteen_bits_lower_the_noise(folder: Path) -> None:
    models, one = run(folder, "plain_")
    before = one(models)
    assert Bound(sqnr=before.sqnr - 1).holds(before)
    mended, after = mend(models, before, Bound(sqnr=before.sqnr + 3), one)
    assert after.sqnr >= before.sqnr + 3
    assert after.promoted
    assert after.promoted == [name for name, _ in before.ranking()][: len(after.promoted)]
    ranges = mended.stage.ranges.ranges
    assert all(ranges[name].bits == 16 for name in after.promoted)
    with pytest.raises(OptionError, match="with 16 bits everywhere"):
        mend(models, before, Bound(sqnr=500.0), one)


def test_weights_follow_the_tensor_that_is_promoted(folder: Path) -> None:
    models = read_models(folder / "plain_float.sim", folder / "plain_fixed.sim")
    ranges = promote(models, ["sum"]).stage.ranges.ranges
    weights = {name for name, one in ranges.items() if one.bits == 16 and name.startswith("w")}
    assert weights == {"w4"}
    largest = np.abs(models.floating.constants["w4"]).max((1, 2, 3))
    assert np.allclose(ranges["w4"].high, largest)


class Page(HTMLParser):
    """Counts elements and collects links and headings."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.links: list[str] = []
        self.headings: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "rect", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def test_the_command_writes_a_table_json_and_a_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = folder / "labels.txt"
    labels.write_text("".join(f"{n}.png {n}\n" for n in range(COUNT)))
    words = [*accuracy_of(folder), "--labels", str(labels), "-o", str(folder / "out"), "--threads", "1"]
    words += ["--fix", str(folder / "mended.sim"), "--min_sqnr", "30", "--max-drop", "100%"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "give 16 bits first" in printed
    assert "top-5" in printed
    data = json.loads((folder / "out" / "accuracy.json").read_text())
    assert data["samples"] == COUNT
    assert {one["name"] for one in data["weights"]} == {"w0", "w2", "w4", "w6"}
    assert set(data["scores"]) == {"float", "fixed"}
    assert data["outputs"][0]["sqnr"] >= 30
    assert data["cost"]["bytes_after"] >= data["cost"]["bytes_before"] * 0.9
    text = (folder / "out" / "accuracy.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.links == []
    assert [h for h in page.headings if h in ("Outputs", "Activations", "Weights", "Histograms")] == [
        "Outputs",
        "Activations",
        "Weights",
        "Histograms",
    ]
    assert page.tags["svg"] == page.tags["details"] == len(data["activations"]) + len(data["weights"])
    bits = {name: one.bits for name, one in read_stage(folder / "mended.sim").ranges.ranges.items()}
    assert sorted(name for name in bits if bits[name] == 16 and name in data["promoted"]) == sorted(
        data["promoted"]
    )


def test_figures_do_not_depend_on_the_batch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four samples at a time, and the last two by themselves; the image takes four at a time too."""
    compile_model(folder / "fixed.sim", "host", folder / "model.img", batches=(1, 4))
    found = []
    for batch in ("1", "4"):
        more = ["--offline", str(folder / "model.img"), "-b", batch, "-o", str(folder / batch)]
        assert main([*accuracy_of(folder), "-c", "Classification", *more]) == 0
        found.append(json.loads((folder / batch / "accuracy.json").read_text()))
    alone, together = found
    assert alone["scores"] == together["scores"]
    assert set(alone["scores"]) == {"float", "fixed", "offline"}
    assert alone["image_differs"] == together["image_differs"] == []
    for one, two in zip(alone["activations"], together["activations"], strict=True):
        assert one["mse"] == pytest.approx(two["mse"], rel=1e-4)
        assert one["worst_sample"] == two["worst_sample"]
        assert one["histogram"]["fixed"] == two["histogram"]["fixed"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--fix", "x.sim"], "--fix needs a bound"),
        (["--max-drop", "1%"], "--max-drop is for classifiers"),
        (["--max-drop", "many"], "'many' is not a number of points"),
        (["--labels", "one"], "has 1 labels, and there are 6 samples"),
        (["--labels", "bytes"], "bytes.txt': 'utf-8' codec can't decode"),
        (["--labels", "none.txt"], "--labels: cannot read 'none.txt'"),
        (["--labels", "words"], "line 2: 'six' is not the number of a class"),
        (["--labels", "digits"], f"line 1: '{'3' * 20}' is not the number of a class"),
        (["--min-sqnr", "1", "--fix", "none/x.sim"], "--fix: 'none/x.sim': there is no folder 'none'"),
        (["--min-sqnr", "1", "--fix", "fixed.sim"], "fixed.sim' is a file that this command reads"),
        (["--input-config", "other.ini"], "is not the configuration that the model was made with"),
    ],
)
def test_options_that_do_not_go_together(folder: Path, capsys, more, message: str) -> None:
    (folder / "one.txt").write_text("3\n")
    (folder / "bytes.txt").write_bytes(b"\xff\n")
    (folder / "words.txt").write_text("0.png 3\n1.png six\n")
    (folder / "digits.txt").write_text("3" * 6000)
    (folder / "other.ini").write_text(INI)
    texts = ("one", "bytes", "words", "digits")
    more = [str(folder / f"{word}.txt") if word in texts else word for word in more]
    more = [str(folder / word) if word in ("fixed.sim", "other.ini") else word for word in more]
    assert main([*accuracy_of(folder), *more]) == 1
    assert message in capsys.readouterr().err


def test_an_image_of_another_stage_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compile_model(folder / "plain_fixed.sim", "host", folder / "plain.img")
    assert main([*accuracy_of(folder), "--offline", str(folder / "plain.img")]) == 1
    assert "plain.img is fed otherwise than the fixed stage" in capsys.readouterr().err


def test_stages_of_two_networks_are_refused(folder: Path) -> None:
    stage = read_stage(folder / "float.sim")
    graph = graph_from_onnx(stage.model)
    renamed = replace(graph.inputs[0], shape=(1, 12, 20, 3))
    other = graph_to_onnx(replace(graph, inputs=(renamed,), tensors={}))
    write_stage(replace(stage, model=other), folder / "other.sim")
    with pytest.raises(OptionError, match="was not made of"):
        read_models(folder / "other.sim", folder / "fixed.sim")


@pytest.mark.parametrize("level", ["L1", "L5", "Q22"])
def test_nothing_promoted_is_nothing_changed(level: str, tmp_path: Path) -> None:
    """What calibration did to weights and biases stays: scaled channels, corrections, rounding."""
    write_fixed(tmp_path / "fixed.sim", write_float(tmp_path / "float.sim"), level=level)
    models = read_models(tmp_path / "float.sim", tmp_path / "fixed.sim")
    again = promote(models, []).fixed
    assert set(again.constants) == set(models.fixed.constants)
    for name, value in models.fixed.constants.items():
        np.testing.assert_array_equal(again.constants[name], value, err_msg=name)
