"""What turns a file into the array of an input: the value of ``-n``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm_ipu.base.contract import Contract, InputContract
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.tensor import DType, TensorSpec

BUILT_IN = {"classification": 2, "letterbox": 1, "npy": 0}
"""Preprocessing that needs no script, and how many numbers may follow its name."""

RAW_DTYPES = {
    "RAWDATA_U8_NHWC": DType.UINT8,
    "RAWDATA_S16_NHWC": DType.INT16,
    "RAWDATA_U16_NHWC": DType.UINT16,
    "RAWDATA_F32_NHWC": DType.FLOAT32,
}


@dataclass(frozen=True)
class Step:
    """How one input's arrays are made.

    Attributes:
        spec: The float model's input.
        contract: What the bytes mean; None for a model made without a configuration.
        script: Python file with ``image_preprocess``; None for built-in preprocessing.
        built_in: One of ``BUILT_IN``, or empty.
        numbers: What follows its name.
    """

    spec: TensorSpec
    contract: InputContract | None = None
    script: Path | None = None
    built_in: str = ""
    numbers: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """For messages."""
        return str(self.script) if self.script else self.built_in

    def dtype(self, norm: bool) -> DType:
        """Element type of the arrays: the float model's, or that of the raw data."""
        if norm or self.contract is None:
            return self.spec.dtype
        return RAW_DTYPES.get(self.contract.training_format, DType.UINT8)


def parse_steps(
    text: str, specs: tuple[TensorSpec, ...], contracts: tuple[InputContract, ...] = ()
) -> tuple[Step, ...]:
    """The steps that ``-n`` names, in the order of the inputs.

    Args:
        text: Python files, or names such as ``classification:224``, with commas between the inputs.
        specs: Inputs of the float model, in the order of its configuration.
        contracts: Theirs by name; empty for a model made without one.

    Raises:
        OptionError: A file is missing, a name is not known, or the number of them is not that of the inputs.
    """
    names = [spec.name for spec in specs]
    words = [word.strip() for word in text.split(",")]
    if len(words) != len(specs):
        raise OptionError(
            f"-n: {len(words)} given, and the model has {len(specs)} inputs: {', '.join(names)}",
            "give one for each input, with commas between them",
        )
    by_name = {one.name: one for one in contracts}
    return tuple(
        _parse_step(word, spec, by_name.get(spec.name)) for word, spec in zip(words, specs, strict=True)
    )


def _parse_step(word: str, spec: TensorSpec, contract: InputContract | None) -> Step:
    name, *rest = word.split(":")
    if name in BUILT_IN:
        if len(rest) > BUILT_IN[name] or not all(part.isdecimal() and int(part) > 0 for part in rest):
            raise OptionError(
                f"-n: '{word}' is not known",
                "allowed are classification[:SIZE[:RESIZE]], letterbox[:SIZE], npy",
            )
        return Step(spec, contract, None, name, tuple(map(int, rest)))
    path = Path(word)
    if not path.is_file():
        allowed = ", ".join(BUILT_IN)
        raise OptionError(f"-n: there is no file '{word}'", f"give a Python file, or one of {allowed}")
    return Step(spec, contract, path.absolute())


def step_to_json(step: Step) -> dict[str, Any]:
    """A step as plain values."""
    return {
        "spec": [step.spec.name, step.spec.shape, int(step.spec.dtype)],
        "contract": Contract((step.contract,) if step.contract else ()).to_json(),
        "script": None if step.script is None else str(step.script),
        "built_in": step.built_in,
        "numbers": step.numbers,
    }


def step_from_json(data: dict[str, Any]) -> Step:
    """The step that ``step_to_json`` described."""
    name, shape, dtype = data["spec"]
    spec = TensorSpec(name, tuple(shape), DType(dtype))
    contract = next(iter(Contract.from_json(data["contract"]).inputs), None)
    script = data["script"] and Path(data["script"])
    return Step(spec, contract, script, data["built_in"], tuple(data["numbers"]))
