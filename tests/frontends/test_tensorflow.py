"""TensorFlow and Keras models through an image, beside what the frameworks themselves compute."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.frontends.run_kit import TOLERANCE, relative_error, run_image
from tvm_ipu.base.errors import ModelError, OptionError, UnsupportedOperatorError
from tvm_ipu.frontends.loaders import LoadOptions, as_onnx, load_model

pytest.importorskip("tensorflow", reason="needs the extra 'tensorflow'")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def tf() -> Any:
    import tensorflow

    return tensorflow


@pytest.fixture(scope="module")
def keras(tf: Any) -> Any:
    import keras

    keras.utils.set_random_seed(7)
    return keras


def arrays(seed: int = 0, **shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def check(source: Any, feeds: Arrays, expected: Mapping[str, Any], folder: Path, **options: Any) -> None:
    """The image of a source computes what is expected, under the same names."""
    shapes = {name: array.shape for name, array in feeds.items()}
    model = as_onnx(source, LoadOptions(input_shapes=shapes, **options))
    found = run_image(model, feeds, folder)
    assert list(found) == list(expected)
    for name, value in expected.items():
        error = relative_error(found[name], np.asarray(value))
        assert error < TOLERANCE, f"{name}: {error:.1e}"


def names(infos: Any) -> list[str]:
    return [info.name for info in infos]


def dims(info: Any) -> list[int | None]:
    return [d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim]


@pytest.fixture(scope="module")
def network(keras: Any) -> Any:
    """Every usual layer of a picture network, with two inputs and two outputs; 2D ones in NHWC."""
    layers = keras.layers
    rng = np.random.default_rng(1)
    image, more = keras.Input((16, 16, 3), name="image"), keras.Input((6,), name="more")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = skip = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="deep")(layers.ZeroPadding2D(1)(x))
    x = layers.SeparableConv2D(8, 3, padding="same", activation="swish")(layers.Cropping2D(1)(x))
    x = layers.Add()([x, layers.Conv2D(8, 1, activation="tanh", name="side")(skip)])
    x = layers.UpSampling2D(2, interpolation="bilinear")(layers.MaxPooling2D(2)(x))
    x = layers.Concatenate()([x, layers.Conv2DTranspose(4, 2, strides=2)(layers.AveragePooling2D(2)(x))])
    x = layers.PReLU(shared_axes=[1, 2])(layers.LayerNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Concatenate()([x, layers.Dense(4, activation="gelu")(more)])
    scores = layers.Dense(5, activation="softmax", name="scores")(x)
    model = keras.Model([image, more], [scores, layers.LeakyReLU(0.1, name="leaky")(x)], name="net")
    for layer in model.layers:
        if layer.__class__.__name__ == "BatchNormalization":
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


FEEDS = arrays(image=(2, 16, 16, 3), more=(2, 6))


@pytest.fixture(scope="module")
def results(network: Any) -> Arrays:
    scores, leaky = network(list(FEEDS.values()), training=False)
    return {"scores": scores.numpy(), "leaky": leaky.numpy()}


def test_keras_model(network: Any, results: Arrays, tmp_path: Path) -> None:
    check(network, FEEDS, results, tmp_path)


@pytest.fixture(scope="module")
def files(network: Any, keras: Any, tf: Any, tmp_path_factory: Any) -> Path:
    """A folder with the network in every form."""
    folder = tmp_path_factory.mktemp("tensorflow")
    for suffix in ("h5", "keras"):
        network.save(folder / f"net.{suffix}")
    module = tf.Module()
    module.net = network
    shapes = {name: tf.TensorSpec((None, *array.shape[1:]), name=name) for name, array in FEEDS.items()}

    def function(wanted: Sequence[str]) -> Any:
        def call(image: Any, more: Any) -> Any:
            scores, leaky = network([image, more], training=False)
            return {key: value for key, value in {"scores": scores, "leaky": leaky}.items() if key in wanted}

        return tf.function(call).get_concrete_function(**shapes)

    both = function(("leaky", "scores"))
    signatures = {"serving_default": both, "only_scores": function(["scores"])}
    tf.saved_model.save(module, str(folder / "saved"), signatures=signatures)
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    graph = convert_variables_to_constants_v2(both).graph.as_graph_def()
    (folder / "net.pb").write_bytes(graph.SerializeToString())
    return folder


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_keras_files_are_the_model(suffix: str, files: Path, network: Any) -> None:
    """Everything but the numbers in the names of temporary tensors."""
    ours, same = as_onnx(files / f"net.{suffix}"), as_onnx(network)
    assert names(ours.graph.input) == names(same.graph.input) == ["image", "more"]
    assert names(ours.graph.output) == names(same.graph.output) == ["scores", "leaky"]
    assert [node.op_type for node in ours.graph.node] == [node.op_type for node in same.graph.node]
    assert sorted(t.raw_data for t in ours.graph.initializer) == sorted(
        t.raw_data for t in same.graph.initializer
    )
    assert dims(ours.graph.input[0]) == [None, 16, 16, 3]
    assert dims(ours.graph.output[0]) == [None, 5]


def test_nodes_are_named_after_their_layers(network: Any) -> None:
    found = {node.name.partition("/")[0] for node in as_onnx(network).graph.node}
    assert {"stem", "deep", "side", "scores", "leaky"} <= found


def test_saved_model(files: Path, results: Arrays, tmp_path: Path) -> None:
    check(files / "saved", FEEDS, {name: results[name] for name in ("leaky", "scores")}, tmp_path)


def test_signatures(files: Path) -> None:
    model = as_onnx(files / "saved", LoadOptions(signature="only_scores"))
    assert names(model.graph.output) == ["scores"]
    with pytest.raises(OptionError, match="no signature 'train', only only_scores, serving_default"):
        as_onnx(files / "saved", LoadOptions(signature="train"))


def test_saved_model_whose_objects_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tf: Any
) -> None:
    """The stored graph is enough, here one of TensorFlow 1."""
    folder = tmp_path / "saved"
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        a = tf.compat.v1.placeholder(tf.float32, (None, 3), "feed_a")
        b = tf.compat.v1.placeholder(tf.float32, (3, 2), "feed_b")
        scale = tf.compat.v1.get_variable("scale", initializer=np.float32([2, 3]), use_resource=True)
        y = tf.multiply(a @ b, scale, name="product")
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(folder), {"b": b, "a": a}, {"y": y})

    def fail(*_: Any, **__: Any) -> None:
        raise AttributeError("'_UserObject' object has no attribute 'add_slot'")

    feeds = arrays(a=(4, 3), b=(3, 2))
    expected = {"y": feeds["a"] @ feeds["b"] * np.float32([2, 3])}
    check(folder, feeds, expected, tmp_path)
    monkeypatch.setattr(tf.saved_model, "load", fail)
    check(folder, feeds, expected, tmp_path)


def test_graphdef(files: Path, results: Arrays, tmp_path: Path) -> None:
    model = as_onnx(files / "net.pb")
    assert names(model.graph.input) == ["image", "more"]
    assert names(model.graph.output) == ["Identity", "Identity_1"]
    values = dict(zip(["Identity", "Identity_1"], [results["leaky"], results["scores"]], strict=True))
    check(files / "net.pb", FEEDS, values, tmp_path)


@pytest.mark.parametrize(("begin", "end"), [("image", "net/stem/convolution"), ("more:0", "y:0")])
def test_names_are_those_that_the_user_gives(begin: str, end: str, tf: Any, tmp_path: Path) -> None:
    """With or without ``:0``; a part that ends in the other output is not converted at all."""
    path = tmp_path / "graph.pb"
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), "image")
        more = tf.compat.v1.placeholder(tf.float32, (4,), "more")
        tf.nn.conv2d(image, np.ones((3, 3, 3, 2), np.float32), 1, "SAME", name="net/stem/convolution")
        tf.math.lgamma(more[None], "unread")
        tf.nn.relu(tf.nn.bias_add(more[None], np.float32([1, 2, 3, 4])), "y")
        path.write_bytes(graph.as_graph_def().SerializeToString())
    model = as_onnx(path, LoadOptions(inputs=(begin,), outputs=(end,)))
    assert (names(model.graph.input), names(model.graph.output)) == ([begin], [end])
    load_model(path, LoadOptions(inputs=(begin,), outputs=(end,), batch=1))


def test_cut_between_layers(network: Any, keras: Any, tmp_path: Path) -> None:
    """Keras layers stand for their outputs; tensors of the graph are known too."""
    begin, end = network.get_layer("stem"), network.get_layer("side")
    feeds = arrays(stem=(1, 8, 8, 8))
    inner = keras.Model(begin.output, [end.output, network.get_layer("deep").output])
    side, deep = inner(feeds["stem"], training=False)
    outputs = {"side": side, "deep/BiasAdd:0": deep}
    check(network, feeds, outputs, tmp_path, inputs=("stem",), outputs=tuple(outputs))
    with pytest.raises(OptionError, match="--output-arrays: there is no tensor 'sied'; the model has 'side'"):
        as_onnx(network, LoadOptions(outputs=("sied",)))
    with pytest.raises(OptionError, match="the outputs also depend on the input 'more'"):
        as_onnx(network, LoadOptions(inputs=("stem",)))


def test_shapes_are_fixed_before_the_conversion(network: Any) -> None:
    model = as_onnx(network, LoadOptions(input_shapes=[(3, -1, 16, 3), (-1, 6)]))
    assert [dims(info) for info in model.graph.input] == [[3, 16, 16, 3], [None, 6]]
    with pytest.raises(ModelError, match="Dimensions must be equal"):
        as_onnx(network, LoadOptions(input_shapes={"more": (1, 7)}))


def test_inputs_and_outputs_as_nchw(network: Any, tmp_path: Path) -> None:
    feeds = {"image": FEEDS["image"].transpose(0, 3, 1, 2)}
    stem = network.get_layer("stem")(FEEDS["image"]).numpy().transpose(0, 3, 1, 2)
    options: dict[str, Any] = {"inputs_as_nchw": ("image",), "outputs_as_nchw": ("stem",)}
    check(network, feeds, {"stem": stem}, tmp_path, outputs=("stem",), **options)
    both = LoadOptions(
        inputs_as_nchw=("image",), outputs=("stem", "leaky"), outputs_as_nchw=("leaky", "stem")
    )
    model = as_onnx(network, both)
    assert dims(model.graph.input[0]) == [None, 3, 16, 16]
    assert [len(dims(info)) for info in model.graph.output] == [4, 2]
    for wrong in ({"inputs_as_nchw": ("more",)}, {"inputs_as_nchw": ("x",)}, {"outputs_as_nchw": ("x",)}):
        with pytest.raises(OptionError, match="-as-nchw: "):
            as_onnx(network, LoadOptions(**wrong))


def recurrent(keras: Any) -> tuple[Any, Arrays]:
    layers = keras.layers
    ids = keras.Input((7,), dtype="int32", name="ids")
    x = layers.Embedding(20, 8)(ids)
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(x)
    x = layers.GRU(5, return_sequences=True)(x)
    model = keras.Model(ids, [layers.SimpleRNN(4, name="rnn")(x), layers.LSTM(3, name="lstm")(x)])
    return model, {"ids": np.random.default_rng(5).integers(0, 20, (2, 7)).astype(np.int32)}


def attention(keras: Any) -> tuple[Any, Arrays]:
    layers = keras.layers
    tokens = keras.Input((6, 16), name="tokens")
    x = layers.MultiHeadAttention(2, 8)(tokens, tokens)
    x = skip = layers.LayerNormalization(epsilon=1e-5)(layers.Add()([x, tokens]))
    x = layers.Dense(16)(layers.Dense(32, activation="gelu")(x))
    x = layers.Conv1D(8, 3, padding="causal", activation="elu")(layers.Add()([x, skip]))
    x = layers.Dense(4, activation="mish", name="mish")(layers.GlobalMaxPooling1D()(x))
    return keras.Model(tokens, x), arrays(tokens=(2, 6, 16))


@pytest.mark.parametrize("build", [recurrent, attention])
def test_sequences(build: Any, keras: Any, tmp_path: Path) -> None:
    model, feeds = build(keras)
    results = model(next(iter(feeds.values())), training=False)
    results = results if isinstance(results, list) else [results]
    check(model, feeds, dict(zip(model.output_names, results, strict=True)), tmp_path)


def test_a_model_of_a_class_needs_an_example(keras: Any, tmp_path: Path) -> None:
    class Net(keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x: Any) -> Any:
            inner = self.dense(x["u"])
            return {"sum": inner + x["a"], "inner": inner}

    model, feeds = Net(), arrays(u=(2, 3), a=(2, 4))
    expected = {name: value.numpy() for name, value in sorted(model(feeds).items())}
    with pytest.raises(OptionError, match=r"does not say what its inputs are.*example_input"):
        as_onnx(model)
    check(model, feeds, expected, tmp_path, example_input=feeds)


def test_keras_2_wrote_more_than_keras_3_reads(keras: Any, tmp_path: Path) -> None:
    """Such files have ``groups`` in depthwise convolutions and ``time_major`` in recurrent layers."""
    import h5py

    layers = [
        keras.Input((6, 6, 2)),
        keras.layers.DepthwiseConv2D(3),
        keras.layers.Conv2DTranspose(3, 2),
        keras.layers.Reshape((5, 15)),
        keras.layers.LSTM(4, name="last"),
    ]
    model, path = keras.Sequential(layers), tmp_path / "net.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            extra = {"LSTM": {"time_major": False}}.get(layer["class_name"], {"groups": 1})
            if layer["class_name"] in ("DepthwiseConv2D", "Conv2DTranspose", "LSTM"):
                layer["config"] |= extra
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(Exception, match="groups"):
        keras.models.load_model(path)
    feeds = arrays(x=(1, 6, 6, 2))
    found = as_onnx(path, LoadOptions(batch=1))
    assert names(found.graph.output) == ["last"]
    (name,) = names(found.graph.input)
    check(path, {name: feeds["x"]}, {"last": model(feeds["x"])}, tmp_path)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_python_code_in_files_is_not_run_without_trust(suffix: str, keras: Any, tmp_path: Path) -> None:
    layers = [keras.Input((4,), name="x"), keras.layers.Lambda(lambda x: x * 2 + 1, name="twice")]
    path = tmp_path / f"code.{suffix}"
    keras.Sequential(layers).save(path)
    with pytest.raises(ModelError, match=r"Lambda.*--trust-pickle"):
        as_onnx(path)
    feeds = arrays(x=(1, 4))
    check(path, feeds, {"twice": feeds["x"] * 2 + 1}, tmp_path, trust_pickle=True)


def broken(files: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Damaged files of each form, and what is said of them."""
    for name in ("net.h5", "net.keras", "net.pb"):
        data = (files / name).read_bytes()
        for part, size in (("half", len(data) // 2), ("empty", 0)):
            path = folder / f"{part}{Path(name).suffix}"
            path.write_bytes(data[:size])
            yield path, "truncated" if part == "half" or name != "net.pb" else "is empty"
    (folder / "text.pb").write_text("node { name: 'x' }")
    yield folder / "text.pb", "is not a TensorFlow GraphDef"
    (folder / "text.h5").write_text("no model" * 100)
    yield folder / "text.h5", "is not a Keras model"
    yield folder, "no 'saved_model.pb' in it"
    saved = (files / "saved" / "saved_model.pb").read_bytes()
    for part, size in (("damaged", len(saved) // 3), ("nothing", 0), ("lost", len(saved))):
        (folder / part).mkdir()
        (folder / part / "saved_model.pb").write_bytes(saved[:size])
        yield folder / part, {"damaged": "truncated", "nothing": "is empty", "lost": "cannot be read"}[part]
    yield files / "saved" / "saved_model.pb", "give the folder of the SavedModel"


def test_damaged_files(files: Path, tmp_path: Path) -> None:
    for path, text in broken(files, tmp_path):
        with pytest.raises(ModelError) as caught:
            as_onnx(path, platform="tensorflow")
        assert text in str(caught.value), path
        assert str(path) in str(caught.value)


def test_constant_of_another_type_than_its_own(tf: Any, tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (2,), "x")
        tf.identity(x * tf.constant([1.0, 2.0], name="weight"), "y")
    damaged = graph.as_graph_def()
    (weight,) = (node for node in damaged.node if node.name == "weight")
    weight.attr["value"].tensor.dtype = tf.int32.as_datatype_enum
    path.write_bytes(damaged.SerializeToString())
    with pytest.raises(ModelError, match="constant 'weight' is not of its own type"):
        as_onnx(path)


def test_graph_that_is_not_frozen(tf: Any, tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (2,), "x")
        tf.identity(x * tf.compat.v1.get_variable("weight", (2,)), "y")
        path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(ModelError, match=r"is not frozen: 'weight.*' is a variable.*freeze the graph"):
        as_onnx(path)


def test_all_operators_that_cannot_be_converted_are_listed(tf: Any, tmp_path: Path) -> None:
    """Those that TensorFlow does not know, and those that only the conversion does not; a cut avoids them."""
    path = tmp_path / "graph.pb"
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (1, 4), "x")
        x = tf.nn.relu(x, "net/relu")
        tf.raw_ops.Add(x=tf.math.lgamma(x, "head/a/Lgamma"), y=tf.math.digamma(x, "head/b/Digamma"), name="y")
        proto = graph.as_graph_def()
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_model(path)
    assert "2 nodes" in str(caught.value)
    assert "Lgamma 'head/a/Lgamma'" in str(caught.value)
    assert "Digamma 'head/b/Digamma'" in str(caught.value)
    load_model(path, LoadOptions(outputs=("net/relu",)))
    for node in proto.node:
        if node.op in ("Lgamma", "Digamma"):
            node.op = f"My{node.op}"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_model(path)
    assert "MyLgamma: head/a/Lgamma" in str(caught.value)
    assert "MyDigamma: head/b/Digamma" in str(caught.value)
    load_model(path, LoadOptions(outputs=("net/relu",)))


def test_tensorflow_is_silent(files: Path) -> None:
    command = [sys.executable, "-m", "tvm_ipu", "inspect", str(files / "saved")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
