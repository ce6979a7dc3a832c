"""Stages, images, configurations, samples and all else that commands read beside models."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.reader import COMPILE, Files, Reader, collect, command, first, python_pickles, text_seeds
from tests.unit.config_kit import FULL, MIXED, NETWORK


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


QUANT = """QUANT_CONFIG:
  retrain_iter_num: 40
  device: cpu
  mixed_precisions: [8, 16]
  use_preset_min_max_bit: 1
  mp_rate: 0.75
  PRESET_MIN_MAX_BIT: [{name: x, min: [0.0], max: [1.0], bit: 8, data: [[1, 2]]}]
"""
YAML_WORDS = (
    *("!!python/object/apply:os.system", "!!python/name:os.system", "&a", "*a", "<<", "!!binary", "!!set"),
    *("|", "?", "2001-01-01", "0x7f", "1_0", ".nan", ".inf", "~", "---", "min", "max", "bit", "data"),
)


def net_ini_seeds(folder: Path) -> Iterator[Files]:
    """A model with its configuration."""
    from tests.unit.frontend_kit import network

    yield {"net.onnx": network().SerializeToString(), "input_config.ini": NETWORK.encode()}


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
    entries = [
        {"name": "x", "min": [0.0], "max": [1.0], "bit": 8, "data": [[1.0, 2.0]]},
        {"name": "y", "bit": 16},
    ]
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
    arrays: dict[str, Any] = {
        "x": np.ones((1, 3, 4), np.float32),
        "i": np.arange(3),
        "s": np.array(["a", "é"]),
    }
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


STAGE = "convert onnx --model_file net.onnx --input_shapes 1,3,5,5 --output_file out.sim --soc_version"

OTHERS: dict[str, Reader] = {
    "stage": Reader(stage_seeds, command("inspect net.sim")),
    "stage-export": Reader(stage_seeds, command("export net.sim -o out.onnx")),
    "stage-compile": Reader(stage_seeds, command(f"compile net.sim {COMPILE}"), programs=True),
    "image": Reader(image_seeds, command("inspect net.img")),
    "input-config": Reader(text_seeds("input_config.ini", MIXED, FULL), read_ini),
    "input-config-model": Reader(net_ini_seeds, command(f"{STAGE} ipu-ref --input_config input_config.ini")),
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
