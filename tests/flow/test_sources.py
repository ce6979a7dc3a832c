"""Flows of other toolchains, from a model of each framework to results, with those toolchains' own options.

The networks are those of their examples, with random weights and fewer layers where the time would be long.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ipu
from tests.models import builders
from tvm_ipu.cli.main import main
from tvm_ipu.frontends.loaders import ready_platforms
from tvm_ipu.quantization import Dataset, ModelType, compile_model, quantize, serialize
from tvm_ipu.runtime import Session

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
READY = ready_platforms()
HALF = 2e-2
"""Error of 16-bit precision, as a share of the largest value."""


def needs(platform: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(platform not in READY, reason=f"there is no loader for {platform} models")


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, as a share of the largest value."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def run_onnx(path: Path | str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def command(words: str) -> None:
    assert main(words.split()) == 0


SQUAD = builders.BertSize(2, 128, 4, vocabulary=1000, positions=256)


def bert_squad() -> onnx.ModelProto:
    """A BERT with the inputs and outputs of the model zoo's bertsquad-12, all of an open batch."""
    model = builders.bert(builders.bert_weights(SQUAD), SQUAD, "bertsquad")
    rng = np.random.default_rng(1)
    head = rng.normal(0, 0.1, (SQUAD.hidden, 2)).astype(np.float32)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(head, "squad/output_weights"))
    graph.initializer.append(numpy_helper.from_array(np.array([1, 1]), "squad/split"))
    graph.initializer.append(numpy_helper.from_array(np.array([2]), "squad/axis"))
    graph.node.extend(
        [
            helper.make_node("MatMul", ["last_hidden_state", "squad/output_weights"], ["logits"], "logits"),
            helper.make_node("Split", ["logits", "squad/split"], ["start", "end"], "unstack", axis=2),
            helper.make_node("Squeeze", ["start", "squad/axis"], ["unstack:0"], "start"),
            helper.make_node("Squeeze", ["end", "squad/axis"], ["unstack:1"], "end"),
            helper.make_node("Identity", ["unique_ids_raw_output___9:0"], ["unique_ids:0"], "ids"),
        ]
    )
    names = {"input_ids": "input_ids:0", "attention_mask": "input_mask:0", "token_type_ids": "segment_ids:0"}
    for one in graph.node:
        one.input[:] = [names.get(name, name) for name in one.input]
    del graph.input[:], graph.output[:]
    open_batch = ["unk__495", 256]
    for name in names.values():
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, open_batch))
    ids = helper.make_tensor_value_info("unique_ids_raw_output___9:0", TensorProto.INT64, ["unk__492"])
    graph.input.append(ids)
    for name in ("unstack:1", "unstack:0"):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, open_batch))
    graph.output.append(helper.make_tensor_value_info("unique_ids:0", TensorProto.INT64, ["unk__492"]))
    return model


def test_bert_squad_at_batch_16_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX: converted and compiled in one go, with PopRT's options."""
    monkeypatch.chdir(tmp_path)
    onnx.save(bert_squad(), "bertsquad-12.onnx")
    command(
        "convert --input_model bertsquad-12.onnx --output_model bertsquad-12_fp16_bs_16.onnx --input_shape "
        "input_ids:0=16,256 input_mask:0=16,256 segment_ids:0=16,256 unique_ids_raw_output___9:0=16 "
        "--precision fp16 --convert_version 11 --export_popef executable.img --ipu_version host"
    )
    rng = np.random.default_rng(2)
    lengths = rng.integers(32, 256, 16)[:, None]
    feeds = {
        "input_ids:0": rng.integers(0, SQUAD.vocabulary, (16, 256)),
        "input_mask:0": (np.arange(256) < lengths).astype(np.int64),
        "segment_ids:0": (np.arange(256) >= lengths // 2).astype(np.int64),
        "unique_ids_raw_output___9:0": np.arange(16),
    }
    expected = run_onnx("bertsquad-12.onnx", feeds)
    converted = onnx.load("bertsquad-12_fp16_bs_16.onnx")
    assert converted.opset_import[0].version == 11
    assert TensorProto.FLOAT16 in {tensor.data_type for tensor in converted.graph.initializer}
    with Session("executable.img", threads=2) as session:
        found = session.run(feeds)
    for results in (found, run_onnx("bertsquad-12_fp16_bs_16.onnx", feeds)):
        assert np.array_equal(results["unique_ids:0"], np.arange(16))
        for name in ("unstack:0", "unstack:1"):
            assert error(results[name], expected[name]) < HALF, name


@needs("tensorflow")
def test_resnet_v2_50_as_a_saved_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow: to NCHW with tf2onnx's options, then to half precision and an image with PopRT's."""
    import keras

    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    pictures = keras.layers.Input((None, None, 3), name="inputs")
    network = keras.applications.ResNet50V2(
        weights=None, input_tensor=pictures, classes=1001, classifier_activation=None
    )
    logits = keras.layers.Activation("linear", name="logits")(network.output)
    model = keras.Model({"inputs": pictures}, {"logits": logits})
    model.export("resnet_v2_50", verbose=False)
    command(
        "convert --saved-model resnet_v2_50 --output resnet_v2_50.onnx --inputs-as-nchw inputs "
        "--outputs-as-nchw logits --opset 11 --input_shape inputs=4,3,96,96"
    )
    command(
        "convert --input_model resnet_v2_50.onnx --precision fp16 --output_model resnet_v2_50_optimized.onnx "
        "--input_shape inputs=4,3,96,96 --convert_version 11 --export_popef --ipu_version host"
    )
    x = np.random.default_rng(0).uniform(-1, 1, (4, 3, 96, 96)).astype(np.float32)
    expected = model({"inputs": x.transpose(0, 2, 3, 1)})["logits"].numpy()
    with Session("resnet_v2_50_optimized.img", threads=2) as session:
        assert error(session.run({"inputs": x})["logits"], expected) < HALF
    assert error(run_onnx("resnet_v2_50.onnx", {"inputs": x})["logits"], expected) < 1e-4


@needs("pytorch")
def test_resnet_50_as_torch_exports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision, exported at opset 11, at the size of the example, which is no multiple of 32."""
    import torch

    from tests.frontends.torch_zoo import torchvision_models

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = torchvision_models().resnet50().eval()
    x = torch.randn(4, 3, 244, 244)
    torch.onnx.export(model, (x,), "resnet50.onnx", opset_version=11, dynamo=False)
    command("convert --input_model resnet50.onnx --precision fp16 --export_popef --ipu_version host")
    with torch.inference_mode():
        expected = model(x).numpy()
    (name,) = (info.name for info in onnx.load("resnet50.onnx.optimized.onnx").graph.input)
    with Session("resnet50.onnx.optimized.img", threads=2) as session:
        (found,) = session.run({name: x.numpy()}).values()
    assert error(found, expected) < HALF


@needs("pytorch")
def test_bert_for_classification_from_pytorch(tmp_path: Path) -> None:
    """OpenVINO's example: a live object with open lengths, quantised with a dataset, asked for a class."""
    import torch

    from tests.frontends.torch_zoo import torchvision_models

    torchvision_models()  # transformers imports torchvision where that is installed
    import transformers

    length = 64
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=500,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=length,
        initializer_range=0.1,  # so that classes differ without training
    )
    torch_model = transformers.BertForSequenceClassification(config).eval()
    shape = [1, -1]
    input_info = [(name, shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")]
    default_input = torch.ones(1, length, dtype=torch.int64)
    inputs = {name: default_input for name, _, _ in input_info}
    model = tvm_ipu.convert_model(torch_model, example_input=inputs, input=input_info)

    rng = np.random.default_rng(0)
    half = np.arange(length) >= length // 2
    samples: list[dict[str, Any]] = [
        {"words": rng.integers(1, 500, length), "length": int(rng.integers(length // 2 + 4, length + 1))}
        for _ in range(48)
    ]

    def transform_fn(sample: dict[str, Any]) -> dict[str, np.ndarray]:
        mask = (np.arange(length) < sample["length"]).astype(np.int64)[None]
        return {
            "input_ids": sample["words"][None] * mask,
            "attention_mask": mask,
            "token_type_ids": half.astype(np.int64)[None] * mask,
        }

    calibration_dataset = Dataset(samples[:16], transform_fn)
    quantized_model = quantize(model, calibration_dataset, model_type=ModelType.TRANSFORMER, quant_level="L2")
    serialize(quantized_model, tmp_path / "bert.onnx")
    with compile_model(quantized_model, "host") as compiled:
        (output,) = compiled.outputs
        found = np.concatenate([compiled(transform_fn(sample))[output.name] for sample in samples[16:]])
    with torch.inference_mode():
        fed = [{k: torch.from_numpy(v) for k, v in transform_fn(one).items()} for one in samples[16:]]
        expected = np.concatenate([torch_model(**one).logits.numpy() for one in fed])
    assert len(set(expected.argmax(1))) == 2, "the samples are of both classes"
    margin = np.abs(expected[:, 0] - expected[:, 1])
    sure = margin > 0.1 * np.abs(expected).max()
    assert sure.sum() > 16
    assert np.array_equal(found.argmax(1)[sure], expected.argmax(1)[sure])
    assert error(found, expected) < 0.1


@needs("jax")
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_jax(kind: str, tmp_path: Path) -> None:
    """The example's network for digits: dense layers with ReLU and log softmax; and one with convolutions."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape), jnp.float32)

    sizes = (28 * 28, 1024, 1024, 10) if kind == "mlp" else (7 * 7 * 16, 10)
    dense = [(draw(a, b), draw(b)) for a, b in pairwise(sizes)]
    kernels = [draw(3, 3, 1, 8), draw(3, 3, 8, 16)] if kind == "cnn" else []

    @jax.jit
    def predict(x: jax.Array) -> jax.Array:
        x = x[..., None] if kernels else x
        for kernel in kernels:
            x = jax.lax.conv_general_dilated(
                x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x)
        x = x.reshape(x.shape[0], -1)
        for weight, bias in dense[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return jax.nn.log_softmax(x @ dense[-1][0] + dense[-1][1])

    digits = rng.uniform(0, 1, (8, 28, 28)).astype(np.float32)
    model = tvm_ipu.convert_model(predict, example_input=digits)
    tvm_ipu.compile_model(model, "host", tmp_path / "digits.img")
    (name,) = (info.name for info in model.graph.input)
    with Session(tmp_path / "digits.img") as session:
        (found,) = session.run({name: digits}).values()
    assert error(found, np.asarray(predict(digits))) < 1e-4
