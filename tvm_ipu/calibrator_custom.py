"""Calibration and simulation of networks in several segments, with Python code between them.

The names are those of the SigmaStar toolchain's module, so that scripts for it run after one changed import:

    import tvm_ipu.calibrator_custom as calibrator_custom

    class Net(calibrator_custom.SIM_Calibrator):
        def __init__(self):
            super().__init__()
            self.model = calibrator_custom.calibrator("float.sim", "input_config.ini")

        def forward(self, x):
            self.model.set_input(0, x)
            self.model.invoke()
            return self.model.get_output(0)

    Net().convert(([x] for x in samples), fix_model=["fixed.sim"])

docs/calibrator-custom.md lists every name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.contract import InputContract
from tvm_ipu.base.copies import map_in_copies
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.target import load_target
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.fixed_point import Calibration, calibrate_stage, read_float_stage
from tvm_ipu.frontends.onnx.plain import graph_from_onnx
from tvm_ipu.quantize.calibrate import CalibrationOptions, choose_bits, choose_places
from tvm_ipu.quantize.levels import DEFAULT
from tvm_ipu.samples.samples import ANY, Samples
from tvm_ipu.samples.steps import BUILT_IN, parse_steps
from tvm_ipu.simulate.simulator import Details, Simulator
from tvm_ipu.simulation import compile_runner, float_tensors, open_fixed, open_float, open_offline

Array = NDArray[Any]

_chosen: list[str] = []


def set_soc_version(name: str) -> None:
    """Choose the chip that models of this process are calibrated for.

    Raises:
        OptionError: It was chosen before.
        TargetError: There is no such chip.
    """
    if _chosen:
        raise OptionError(
            f"set_soc_version('{name}'): it was called with '{_chosen[0]}' before", "call it once"
        )
    load_target(name)
    _chosen.append(name)


class calibrator(Simulator):  # noqa: N801  the toolchain's name
    """A float model that is to be calibrated; until then it runs in float.

    Args:
        model_path: Float stage.
        input_config: Its configuration; by default what the stage says.
    """

    def __init__(self, model_path: str | Path, input_config: str | Path | None = None) -> None:
        self.path = Path(model_path)
        stage = read_float_stage(self.path, None if input_config is None else Path(input_config))
        self.stage = replace(stage, target=_chosen[0]) if _chosen else stage
        graph = graph_from_onnx(stage.model)
        self._graph = graph
        self._seen: Callable[[dict[str, Array]], None] | None = None
        super().__init__(graph.inputs, graph.outputs, compile_runner(graph), ())

    def get_tensor_details(self) -> list[Details]:
        """``name``, ``shape``, ``dtype`` of each tensor, and ``qtype``: what calibration makes of it."""
        chip = load_target(self.stage.target or "host").chip
        options = CalibrationOptions(operator_bits=max(chip.operator_bits) if chip else 8)
        places = choose_places(self._graph, options)
        bits = choose_bits(self._graph, places, options, self.stage.contract)
        weights = {name for name in bits if name in self._graph.constants}
        details = [
            *float_tensors(self._graph),
            *(
                {
                    "dtype": "FLOAT32",
                    "name": name,
                    "shape": np.array(self._graph.constants[name].shape, np.int32),
                }
                for name in sorted(weights)
            ),
        ]
        types = {8: "UINT8", 16: "INT16", 32: "FLOAT32"}
        for one in details:
            found = bits.get(one["name"], 32)
            one["qtype"] = f"INT{found}" if one["name"] in weights and found < 32 else types[found]
        return details

    def invoke(self) -> None:
        """Run the float model; while ``SIM_Calibrator.convert`` runs, its inputs are kept for calibration."""
        super().invoke()
        if self._seen is not None:
            self._seen(dict(self._feeds))


class SIM_Calibrator:  # noqa: N801  the toolchain's name
    """A network of one or more ``calibrator`` models: set them in ``__init__``, and write ``forward``."""

    def forward(self, *inputs: Any, **names: Any) -> Any:
        """Run the network on one sample's arrays, as ``convert``'s generator gives them."""
        raise NotImplementedError("write the method forward")

    def convert(
        self,
        img_gen: Iterable[Sequence[Array]],
        fix_model: Sequence[str | Path] = (),
        num_process: int = 1,
        quant_level: str = DEFAULT,
        quant_param: str | Path | None = None,
    ) -> None:
        """Calibrate all models on what ``forward`` feeds them, and write their fixed stages.

        Args:
            img_gen: A list of arrays for each sample: the arguments of ``forward``.
            fix_model: A file for each model, in the order in which ``__init__`` sets them.
            num_process: Samples that run at a time, each in a forked copy of this process, where what
                ``forward`` leaves in objects is lost with the copy; and tensors that are looked at at a
                time. The result does not depend on it.
            quant_level: ``L1`` to ``L5``, or ``Q10`` to ``Q23``.
            quant_param: File of ranges and bits to use, JSON or Pickle.

        Raises:
            OptionError: The number of files is not that of the models, or a model was never run.
            TvmIpuError: Calibration failed.
        """
        models = [one for one in vars(self).values() if isinstance(one, calibrator)]
        if len(fix_model) != len(models):
            raise OptionError(
                f"fix_model: {len(fix_model)} files for {len(models)} models", "give one for each"
            )
        options = Calibration(
            quant_level, num_process, parameters=None if quant_param is None else Path(quant_param)
        )
        with tempfile.TemporaryDirectory(prefix="tvm_ipu-") as folder:
            kept = [_Feeds(Path(folder) / str(number), model) for number, model in enumerate(models)]

            def run(numbered: tuple[int, Sequence[Array]]) -> list[int]:
                for model, feeds in zip(models, kept, strict=True):
                    model._seen = feeds.of_sample(numbered[0])
                try:
                    self.forward(*numbered[1])
                finally:
                    for model in models:
                        model._seen = None
                return [feeds.calls for feeds in kept]

            for calls in map_in_copies(run, enumerate(img_gen), num_process):
                for feeds, count in zip(kept, calls, strict=True):
                    feeds.counts.append(count)
            for model, feeds, output in zip(models, kept, fix_model, strict=True):
                if not any(feeds.counts):
                    raise OptionError(f"{model.path}: forward did not run the model, or there are no samples")
                calibrate_stage(model.stage, Path(output), feeds.read, options)


class SIM_Simulator:  # noqa: N801  the toolchain's name
    """A network of simulators with Python code between them: calling it runs samples through ``forward``."""

    def forward(self, *inputs: Any, **names: Any) -> Any:
        """Run the network on one sample's arrays."""
        raise NotImplementedError("write the method forward")

    def __call__(self, img_gen: Iterable[Sequence[Array]], num_process: int = 1) -> list[Any]:
        """What ``forward`` returns for each sample.

        Args:
            img_gen: A list of arrays for each sample: the arguments of ``forward``.
            num_process: Samples that run at a time, as for ``SIM_Calibrator.convert``.
        """
        return list(map_in_copies(lambda inputs: self.forward(*inputs), img_gen, num_process))


class _Feeds:
    """Arrays that a model was fed, in files, so that memory does not grow with the samples.

    Attributes:
        calls: How often the sample that runs has called the model.
        counts: How often each sample did.
    """

    def __init__(self, folder: Path, model: calibrator) -> None:
        folder.mkdir()
        self._folder = folder
        self._names = [spec.name for spec in model.inputs]
        self.calls = 0
        self.counts: list[int] = []

    def of_sample(self, number: int) -> Callable[[Mapping[str, Array]], None]:
        """What keeps the arrays of each call while a sample runs."""
        self.calls = 0

        def add(feeds: Mapping[str, Array]) -> None:
            np.savez(self._folder / f"{number}-{self.calls}.npz", *(feeds[name] for name in self._names))
            self.calls += 1

        return add

    def read(self) -> Iterator[dict[str, Array]]:
        """All that the model was fed, in the order of the samples."""
        for number, count in enumerate(self.counts):
            for call in range(count):
                with np.load(self._folder / f"{number}-{call}.npz") as arrays:
                    yield {name: arrays[f"arr_{n}"] for n, name in enumerate(self._names)}


def float_simulator(model_path: str | Path) -> Simulator:
    """The float model of a stage."""
    return open_float(Path(model_path))


def fixed_simulator(model_path: str | Path) -> Simulator:
    """The fixed model of a stage; it takes what the board feeds."""
    return open_fixed(Path(model_path))


def offline_simulator(model_path: str | Path) -> Simulator:
    """An image; it takes what the board feeds."""
    return open_offline(Path(model_path))


def image_preprocess_func(name: str) -> Callable[..., Array]:
    """A function ``(path, norm=True)`` of one picture, run in a process of its own.

    Args:
        name: Python file with ``image_preprocess``, or built-in preprocessing with its size, such as
            ``classification:224``, whose arrays are RGB [1, H, W, 3], divided by 255 where ``norm`` is True.

    Raises:
        OptionError: There is no such file or name.
    """
    word, *numbers = name.split(":")
    size = int(numbers[0]) if numbers and numbers[0].isdecimal() else 0
    if word in BUILT_IN and word != "npy" and not size:
        raise OptionError(f"image_preprocess_func: '{name}' has no size", f"give one, as in {word}:224")
    spec = TensorSpec("x", (1, size, size, 3), DType.FLOAT32)
    (step,) = parse_steps(name, (spec,), (InputContract("x", "RGB", "RGB", mean=(0.0,), std=(255.0,)),))

    def function(path: str | Path, norm: bool = True) -> Array:
        (found,) = Samples(((Path(path),),), (step,), shapes=ANY).read(norm)
        return found["x"]

    return function


utils = SimpleNamespace(image_preprocess_func=image_preprocess_func)
