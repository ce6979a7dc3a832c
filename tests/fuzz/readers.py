"""What reads files: for each format small whole files to start from, and the code of the command that reads them."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Files = dict[str, bytes]
Read = Callable[[Path], "bool | None"]


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes:
        seeds: Writes whole files into a folder, each example into a folder of its own, or gives them.
        read: Reads what lies in a folder, to where the command has finished with it.
        words: Names that the format knows, for mutations.
        programs: Whether the command starts programs, such as a linker.
    """

    seeds: Callable[[Path], Iterator[Files]]
    read: Read
    words: Callable[[], Sequence[str]] = tuple
    programs: bool = False


class InternalError(Exception):
    """A command ended with something else than success or a message; the text has the traceback."""


def command(words: str) -> Read:
    """A reader that runs ``tvm-ipu`` with these words in the current folder; true where it refused."""

    def read(folder: Path) -> bool:
        from tvm_ipu.cli.main import main

        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["-v", *words.split()])
        text = err.getvalue()
        if code not in (0, 1) or "error: internal error" in text or "error: not enough memory" in text:
            raise InternalError(text)
        return code == 1

    return read


def first(folder: Path, *suffixes: str) -> Path:
    """The file in ``folder`` with one of these endings."""
    return next(path for path in sorted(folder.iterdir()) if path.suffix in suffixes)


def text_seeds(name: str, *texts: str) -> Callable[[Path], Iterator[Files]]:
    """A file of each text."""
    return lambda _: iter([{name: text.encode()} for text in texts])


def collect(folder: Path) -> Files:
    """All files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def load(folder: Path) -> None:
    """A model to Relax, without code generation."""
    from tvm_ipu.frontends.loaders import LoadOptions, load_model

    load_model(first(folder, ".onnx"), LoadOptions(batch=1))


def convert(suffix: str, shapes: str = "") -> Read:
    """A file of another framework's to ONNX in memory."""

    def read(folder: Path) -> None:
        from tvm_ipu.base.shapes import parse_input_shapes
        from tvm_ipu.conversion import convert_model
        from tvm_ipu.frontends.loaders import LoadOptions

        options = LoadOptions(input_shapes=parse_input_shapes([shapes] if shapes else []))
        convert_model(first(folder, suffix) if suffix else folder / "net", loading=options)

    return read


def onnx_seeds(folder: Path) -> Iterator[Files]:
    """Models with all kinds of weights, and every third of ONNX's own node cases."""
    import onnx
    from onnx.backend.test import case
    from onnx.numpy_helper import from_array

    from tests.simulate import kit
    from tests.unit.frontend_kit import network

    yield {"net.onnx": network().SerializeToString()}
    yield {"net.onnx": kit.transformer()}
    model = network()
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            onnx.external_data_helper.set_external_data(tensor, "w.bin", 0)
            data = tensor.raw_data
            tensor.ClearField("raw_data")
    yield {"net.onnx": model.SerializeToString(), "w.bin": data}
    model = network()
    values = from_array(np.ones(2, np.float32), "b")
    model.graph.sparse_initializer.add(values=values, indices=from_array(np.array([0, 3]), "i"), dims=[4])
    del model.graph.initializer[1]
    yield {"net.onnx": model.SerializeToString()}
    data_folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "node"
    assert case
    for path in sorted(data_folder.glob("*/model.onnx"))[::3]:
        if path.stat().st_size < 20_000:
            yield {"net.onnx": path.read_bytes()}


@functools.cache
def onnx_words() -> tuple[str, ...]:
    """Names of operators and attributes, and of tensors in the examples."""
    from onnx import defs

    schemas = [schema for schema in defs.get_all_schemas() if not schema.domain]
    attributes = {name for schema in schemas for name in schema.attributes}
    return (*sorted({schema.name for schema in schemas}), *sorted(attributes), "x", "y", "w", "ai.onnx.ml")


def small_onnx_seeds(folder: Path) -> Iterator[Files]:
    """Three models that compile at once."""
    from onnx import TensorProto

    from tests.unit.frontend_kit import constant, make_model, node, value

    weights = [constant("w", np.ones((4, 2)), "float32"), constant("s", [2, 2])]
    nodes = [node("MatMul", "x w", "p"), node("Relu", "p", "r"), node("Reshape", "r s", "y")]
    model = make_model(nodes, [value("x", [2, 4])], [value("y", None)], weights)
    yield {"net.onnx": model.SerializeToString()}
    nodes = [node("Conv", "x k", "c", pads=[1] * 4), node("MaxPool", "c", "y", kernel_shape=[2, 2])]
    weights = [constant("k", np.ones((2, 3, 3, 3)), "float32")]
    model = make_model(nodes, [value("x", [1, 3, 4, 4])], [value("y", None)], weights)
    yield {"net.onnx": model.SerializeToString()}
    nodes = [node("Gather", "t i", "g", axis=0), node("Softmax", "g", "y", axis=-1)]
    weights = [constant("t", np.eye(5), "float32")]
    model = make_model(nodes, [value("i", [3], TensorProto.INT64)], [value("y", None)], weights)
    yield {"net.onnx": model.SerializeToString()}


def tflite_seeds(folder: Path) -> Iterator[Files]:
    """Every operator of every family in a model of its own."""
    from tests.frontends import tflite_kit
    from tests.frontends.tflite_cases import FAMILIES

    for cases in FAMILIES.values():
        for case in cases:
            model = tflite_kit.build(case.tensors(), [case.op()], list(case.feeds()), case.output_names())
            if len(model) < 20_000:
                yield {"net.tflite": model}


def caffe_seeds(folder: Path) -> Iterator[Files]:
    """A network with weights, and one of most layers."""
    from tests.frontends import caffe_kit as kit

    rng = np.random.default_rng(0)
    text = kit.data(1, 3, 8, 8)
    conv = "convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 1 bias_term: true }"
    text += kit.layer("conv", "Convolution", "data", params=conv)
    text += kit.layer("norm", "BatchNorm", "conv", params="batch_norm_param { eps: 1e-4 }")
    text += kit.layer("scale", "Scale", "norm", params="scale_param { bias_term: true }")
    text += kit.layer("relu", "ReLU", "scale", params="relu_param { negative_slope: 0.1 }")
    text += kit.layer("pool", "Pooling", "relu", params="pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    text += kit.layer("lrn", "LRN", "pool", params="lrn_param { local_size: 3 alpha: 0.1 }")
    text += kit.layer("fc", "InnerProduct", "lrn", params="inner_product_param { num_output: 2 axis: 1 }")
    text += kit.layer("prob", "Softmax", "fc", params="softmax_param { axis: 1 }")
    weights = {
        "conv": [rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)],
        "norm": [rng.normal(size=4), rng.uniform(1, 2, 4), np.ones(1)],
        "scale": [rng.normal(size=4), rng.normal(size=4)],
        "fc": [rng.normal(size=(2, 64)), rng.normal(size=2)],
    }
    kit.write(folder, text, weights)
    yield collect(folder)
    text = kit.data(1, 4, 6, 6)
    for name, kind, bottoms, params in (
        ("slice", "Slice", "data", "slice_param { axis: 1 slice_point: 2 }"),
        ("sum", "Eltwise", "a b", "eltwise_param { operation: SUM coeff: 1 coeff: -1 }"),
        ("cat", "Concat", "sum a", "concat_param { axis: 1 }"),
        ("flip", "Permute", "cat", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
        ("shape", "Reshape", "flip", "reshape_param { shape { dim: 0 dim: -1 } axis: 0 num_axes: -1 }"),
        ("power", "Power", "shape", "power_param { power: 2 scale: 0.5 shift: 1 }"),
        ("flat", "Flatten", "power", "flatten_param { axis: 1 }"),
        ("crop", "Crop", "data a", "crop_param { axis: 2 offset: 1 }"),
        ("prior", "PriorBox", "a data", "prior_box_param { min_size: 2 variance: 0.1 }"),
        ("up", "Deconvolution", "crop", "convolution_param { num_output: 4 kernel_size: 2 stride: 2 }"),
    ):
        text += kit.layer(name, kind, bottoms, "a b" if name == "slice" else "", params)
    kit.write(folder, text, {"up": [rng.normal(size=(4, 4, 2, 2)), rng.normal(size=4)]})
    yield collect(folder)


CAFFE_WORDS = (
    "AbsVal Accuracy ArgMax Axpy BN Bias BNLL Concat Dropout ELU Embed Exp Input Interp Log MVN Normalize PReLU Pooling "
    "Reduction Reorg ReLU6 ROIPooling ShuffleChannel Sigmoid Silence SPP Split Swish TanH Threshold Tile Upsample "
    "DetectionOutput name type bottom top param blobs axis data input input_dim layers include phase TEST repeated"
).split()


def paddle_seeds(folder: Path) -> Iterator[Files]:
    """Programs of both versions."""
    from tests.frontends import test_paddle as kit

    p = kit.Program()
    p.input("x", (-1, 3))
    p.parameter("w", np.arange(6, dtype=np.float32).reshape(3, 2))
    for name in ("y", "z", "s", "r"):
        p.variable(name, (-1, 2))
    p.op("matmul_v2", {"X": ["x"], "Y": ["w"]}, {"Out": ["y"]}, trans_x=False, trans_y=False)
    p.op("scale", {"X": ["y"]}, {"Out": ["z"]}, scale=3.0, bias=2.0, bias_after_scale=False)
    p.op("softmax", {"X": ["z"]}, {"Out": ["s"]}, axis=-1)
    p.op("slice", {"Input": ["s"]}, {"Out": ["r"]}, axes=[1], starts=[0], ends=[1], decrease_axis=[1])
    p.write(folder, ["r"])
    yield collect(folder)


def paddle3_seeds(folder: Path) -> Iterator[Files]:
    """The program of Paddle 3 that the tests have."""
    from tests.frontends import test_paddle as kit

    kit.unpack(folder)
    yield {name: content for name, content in collect(folder).items() if name.startswith("net.")}


def made(name: str) -> Callable[[Path], Iterator[Files]]:
    """The files of a format of the tests of bad input."""

    def seeds(folder: Path) -> Iterator[Files]:
        from tests.frontends import test_bad_input as kit

        kit.FORMATS[name].make(folder)
        yield collect(folder)

    return seeds


def graphdef_seeds(folder: Path) -> Iterator[Files]:
    """A graph of one product, and one of a picture."""
    import tensorflow as tf

    yield from made("graphdef")(folder)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (1, 8, 8, 3), "x")
        y = tf.nn.conv2d(x, tf.constant(np.ones((3, 3, 3, 2), np.float32)), 2, "SAME")
        tf.concat([tf.nn.max_pool2d(y, 2, 2, "VALID"), tf.nn.avg_pool2d(y, 2, 2, "VALID")], -1, "y")
    yield {"net.pb": graph.as_graph_def().SerializeToString()}


def python_pickles(name: str) -> Iterator[Files]:
    """Pickles that would run code."""
    from tests.fuzz.canary import Canary

    for protocol in (0, 2, 4):
        yield {name: pickle.dumps([{"name": "x", "min": Canary(), "max": [1.0]}], protocol)}


def torch_seeds(name: str) -> Callable[[Path], Iterator[Files]]:
    """The file of the tests, and those that would run code."""

    def seeds(folder: Path) -> Iterator[Files]:
        import torch

        from tests.fuzz.canary import Canary

        yield from made(name)(folder)
        if name == "pth":
            yield from python_pickles("net.pth")
            for old in (False, True):
                out = io.BytesIO()
                torch.save({"a": torch.ones(2), "b": Canary()}, out, _use_new_zipfile_serialization=not old)
                yield {"net.pth": out.getvalue()}

    return seeds


def stage_seeds(folder: Path) -> Iterator[Files]:
    """A float stage and its fixed one."""
    from tests.simulate import kit

    graph = kit.write_float(folder / "net.sim")
    yield collect(folder)
    kit.write_fixed(folder / "net.sim", graph)
    yield collect(folder)


def image_seeds(folder: Path) -> Iterator[Files]:
    """Images of different kinds."""
    from tests.fuzz import seeds

    seeds.main(folder)
    for path in sorted(folder.iterdir()):
        yield {"net.img": path.read_bytes()}


INI = """[INPUT_CONFIG]
inputs=x,v;  # raw data last
training_input_formats=RGB,RAWDATA_F32_NHWC;
input_formats=YUV_NV12,RAWDATA_F32_NHWC;
quantizations=TRUE,TRUE;
mean=1:2:3;
std_value=58.5:57:56;
input_width_alignment=16;
input_height_alignment=2;
input_layouts=NHWC,NHWC
[OUTPUT_CONFIG]
outputs=y,z;
dequantizations=TRUE,FALSE;
output_formats=RAWDATA_F32_NHWC,RAWDATA_S16_NHWC;
[CONV_CONFIG]
tensor_arrays=conv1-1,conv2-1;
"""
NET_INI = """[INPUT_CONFIG]
inputs=x;
training_input_formats=RGB;
input_formats=BGR;
mean=127.5:127.5:127.5;
std_value=127.5;
[OUTPUT_CONFIG]
outputs=y,z;
dequantizations=TRUE,TRUE;
"""
QUANT = """QUANT_CONFIG:
  retrain_iter_num: 40
  device: cpu
  mixed_precisions: [8, 16]
  use_preset_min_max_bit: 1
  mp_rate: 0.75
  PRESET_MIN_MAX_BIT: [{name: x, min: [0.0], max: [1.0], bit: 8, data: [[1, 2]]}]
"""
YAML_WORDS = ("!!python/object/apply:os.system", "!!python/name:os.system", "&a", "*a", "<<", "!!binary", "!!set", "|", "?",
              "2001-01-01", "0x7f", "1_0", ".nan", ".inf", "~", "---", "min", "max", "bit", "data")  # fmt: skip


def net_ini_seeds(folder: Path) -> Iterator[Files]:
    """A model with its configuration."""
    from tests.unit.frontend_kit import network

    yield {"net.onnx": network().SerializeToString(), "input_config.ini": NET_INI.encode()}


def read_ini(folder: Path) -> None:
    """The configuration by itself."""
    from tvm_ipu.base.input_config import read_input_config

    read_input_config(folder / "input_config.ini")


def read_quant(folder: Path) -> None:
    """The configuration, and the entries in it."""
    from tvm_ipu.base.quant_config import read_quant_config
    from tvm_ipu.quantize.parameters import parse_entries

    path = folder / "quant_config.yaml"
    parse_entries(list(read_quant_config(path).presets), str(path))


def parameter_seeds(folder: Path) -> Iterator[Files]:
    """JSON, pickles of both ages, and pickles that would run code."""
    entries = [{"name": "x", "min": [0.0], "max": [1.0], "bit": 8, "data": [[1.0, 2.0]]}, {"name": "y", "bit": 16}]
    yield {"p.json": json.dumps(entries).encode()}
    entries[0]["data"] = np.ones((2, 2), np.float32)
    entries[1]["min"] = entries[1]["max"] = np.float64(0.5)
    for protocol in (0, 2, 4, 5):
        yield {"p.pkl": pickle.dumps(entries, protocol)}
    yield from python_pickles("p.pkl")


def read_parameters(folder: Path) -> None:
    """The file, and what is done with ranges that do not fit."""
    from tvm_ipu.base.ranges import TensorRange
    from tvm_ipu.quantize import parameters

    found = parameters.read_parameters(next(folder.iterdir()))
    parameters.merged({"x": TensorRange("x", (0.0,), (1.0,), 8)}, found)


def record_seeds(folder: Path) -> Iterator[Files]:
    """Some records that ship."""
    path = next(iter(sorted(Path(__file__).parents[2].glob("tuning_logs/*/*.jsonl"))))
    yield {"r.jsonl": b"\n".join(path.read_bytes().splitlines()[:3])}


def read_tuning(folder: Path) -> None:
    """The file, and a look-up of each of its records."""
    from tvm_ipu.base.target import load_target
    from tvm_ipu.tune.records import Records, find_decision, read_records

    found = read_records(folder / "r.jsonl", lambda _: None)
    Records(found, load_target("x86-64-v3"), lambda _: None)
    for one in found:
        find_decision(one.decision, [])


def target_seeds(folder: Path) -> Iterator[Files]:
    """Every target."""
    for path in sorted((Path(__file__).parents[2] / "targets").glob("*.toml")):
        yield {path.name: path.read_bytes()}


def read_target(folder: Path) -> None:
    """A chip or a machine."""
    from tvm_ipu.base.chip import parse_chip
    from tvm_ipu.base.target import parse_target
    from tvm_ipu.base.toml_file import read_toml

    path = first(folder, ".toml")
    (parse_chip if read_toml(path).get("kind") == "ipu" else parse_target)(path)


def array_seeds(folder: Path) -> Iterator[Files]:
    """Arrays of some types, stored and compressed, and an object."""
    arrays: dict[str, Any] = {"x": np.ones((1, 3, 4), np.float32), "i": np.arange(3), "s": np.array(["a", "é"])}
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, **arrays)
        yield {"a.npz": out.getvalue()}
    for array in (*arrays.values(), np.asfortranarray(np.ones((2, 3))), np.array([{}], object)):
        out = io.BytesIO()
        np.save(out, array)
        yield {"a.npz": out.getvalue()}


def read_arrays(folder: Path) -> None:
    """As inputs of a run."""
    from tvm_ipu.base.tensor import DType, TensorSpec
    from tvm_ipu.bench.data import load_arrays, split_samples

    path = folder / "a.npz"
    split_samples(load_arrays(path), [TensorSpec("x", (1, 3, 4), DType.FLOAT32)], path)


def read_example(folder: Path) -> None:
    """As an example to trace with."""
    from tvm_ipu.cli.sources import read_example

    read_example(folder / "a.npz")


def sample_seeds(folder: Path) -> Iterator[Files]:
    """Lists of pictures in some formats."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    for kind in ("png", "jpeg", "bmp", "gif", "tiff", "webp", "ppm"):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind)
        yield {f"a.{kind}": out.getvalue(), "list.txt": f"a.{kind}\na.{kind}\n".encode()}
    out = io.BytesIO()
    np.save(out, np.ones((1, 3, 8, 8), np.float32))
    yield {"a.npy": out.getvalue(), "list.txt": b"a.npy\n"}


def read_samples(folder: Path) -> None:
    """The list, and the arrays of its files, as the worker process makes them."""
    from tvm_ipu.base.tensor import DType, TensorSpec
    from tvm_ipu.samples.built_in import preprocess
    from tvm_ipu.samples.files import find_samples
    from tvm_ipu.samples.samples import check
    from tvm_ipu.samples.steps import parse_steps

    spec = TensorSpec("x", (1, 3, 8, 8), DType.FLOAT32)
    for (path,) in find_samples(folder / "list.txt"):
        name = "npy" if path.suffix == ".npy" else "letterbox"
        (step,) = parse_steps(name, (spec,))
        check(preprocess(step, path, True), step, path, True)


def label_seeds(folder: Path) -> Iterator[Files]:
    """Labels in three forms."""
    yield {"labels.txt": b"cat\ndog\n", "true.txt": b"3\n"}
    yield {"labels.json": b'["cat", {"a": 1}]', "true.txt": b"a.png, 3\nb.png 4\n"}


def read_labels(folder: Path) -> None:
    """Names of classes, and the right classes."""
    from tvm_ipu.cli import accuracy, run
    from tvm_ipu.samples.samples import Samples

    run._read_labels(first(folder, ".txt" if (folder / "labels.txt").exists() else ".json"))
    accuracy._read_labels(folder / "true.txt", Samples(((Path("a.png"),),), ()))


def checkpoint_seeds(folder: Path) -> Iterator[Files]:
    """Statistics of two tensors."""
    from tvm_ipu.quantize.checkpoint import Checkpoint
    from tvm_ipu.quantize.statistics import Statistics

    statistics = Statistics(peaks=np.ones(3))
    statistics.observe(np.ones((1, 3, 4), np.float32), 0)
    Checkpoint(folder / "c.npz", "key").write({"x": statistics})
    yield collect(folder)


def read_checkpoint(folder: Path) -> None:
    """A file that is only ever skipped."""
    from tvm_ipu.quantize.checkpoint import Checkpoint

    Checkpoint(folder / "c.npz", "key").read()


STAGE = "convert onnx --model_file net.onnx --input_shapes 1,3,5,5 --output_file out.sim --soc_version ipu-ref"
COMPILE = "-o out.img --target x86-64-v2 -j 1"

READERS: dict[str, Reader] = {
    "onnx": Reader(onnx_seeds, load, onnx_words),
    "onnx-inspect": Reader(onnx_seeds, command("inspect net.onnx"), onnx_words),
    "onnx-convert": Reader(onnx_seeds, command("convert net.onnx -o out.onnx"), onnx_words),
    "onnx-compile": Reader(small_onnx_seeds, command(f"compile net.onnx {COMPILE}"), onnx_words, True),
    "tflite": Reader(tflite_seeds, convert(".tflite")),
    "caffe": Reader(caffe_seeds, convert(".prototxt"), lambda: CAFFE_WORDS),
    "paddle": Reader(paddle_seeds, convert(".pdmodel")),
    "paddle3": Reader(paddle3_seeds, convert(".json")),
    "graphdef": Reader(graphdef_seeds, convert(".pb")),
    "saved-model": Reader(made("saved_model"), convert("", "1,3")),
    "keras": Reader(made("keras"), convert(".keras", "1,3")),
    "h5": Reader(made("h5"), convert(".h5", "1,3")),
    "torchscript": Reader(torch_seeds("pt"), convert(".pt", "1,3")),
    "exported-program": Reader(torch_seeds("pt2"), convert(".pt2")),
    "torch-pickle": Reader(torch_seeds("pth"), convert(".pth", "1,3")),
    "stage": Reader(stage_seeds, command("inspect net.sim")),
    "stage-export": Reader(stage_seeds, command("export net.sim -o out.onnx")),
    "stage-compile": Reader(stage_seeds, command(f"compile net.sim {COMPILE}"), programs=True),
    "image": Reader(image_seeds, command("inspect net.img")),
    "input-config": Reader(text_seeds("input_config.ini", INI, NET_INI), read_ini),
    "input-config-model": Reader(net_ini_seeds, command(f"{STAGE} --input_config input_config.ini")),
    "quant-config": Reader(text_seeds("quant_config.yaml", QUANT), read_quant, lambda: YAML_WORDS),
    "parameters": Reader(parameter_seeds, read_parameters),
    "records": Reader(record_seeds, read_tuning),
    "target": Reader(target_seeds, read_target),
    "arrays": Reader(array_seeds, read_arrays),
    "example": Reader(array_seeds, read_example),
    "samples": Reader(sample_seeds, read_samples),
    "labels": Reader(label_seeds, read_labels),
    "checkpoint": Reader(checkpoint_seeds, read_checkpoint),
}
