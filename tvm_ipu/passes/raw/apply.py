"""A fixed model that takes and gives the bytes that its contract names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from tvm_ipu.base.contract import RAW_FORMATS, Contract, InputContract, OutputContract
from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.model import GATHER_ATTR, Model
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.passes.raw.frames import Frame
from tvm_ipu.passes.raw.normalise import quantized_pixels, real_pixels
from tvm_ipu.passes.raw.outputs import RawOutput, raw_output
from tvm_ipu.passes.rewrite import Rewriter, bindings, constant, op_name, replace_vars, used_vars

R = relax.op

RAW_DTYPE = {
    "RAWDATA_U8_NHWC": "uint8",
    "RAWDATA_S16_NHWC": "int16",
    "RAWDATA_U16_NHWC": "uint16",
    "RAWDATA_F32_NHWC": "float32",
}


def apply_contract(model: Model, contract: Contract) -> Model:
    """The model with raw bytes in and out; itself where the contract is empty.

    Args:
        model: A quantised model as it was imported, before any pass: what reads an input quantises it.
        contract: What the board feeds and reads. Inputs and outputs that it does not name stay as they are.

    Raises:
        ModelError: An input or output does not fit what the contract says of it.
    """
    if not contract.inputs and not contract.outputs:
        return model
    named = {one.name: one for one in contract.inputs}
    outputs = {one.name: one for one in contract.outputs}
    main = model.module["main"]
    rewriter = Rewriter(model.module)
    inputs = {}
    for spec, var in zip(model.inputs, main.params, strict=True):
        if spec.name in named:
            readers = [b.value for b in bindings(main) if var in used_vars(b.value)]
            is_index = all(_is_index(rewriter, reader, var) for reader in readers)
            inputs[var] = _make_input(rewriter, spec, named[spec.name], is_index)

    def rule(_: Rewriter, call: relax.Call) -> relax.Expr | None:
        old = [arg for arg in used_vars(call) if arg in inputs]
        if not old:
            return None
        if op_name(call) == "relax.quantize":
            return inputs[old[0]].quantized(call)
        return replace_vars(call, lambda var: inputs[var].real() if var in inputs else var)

    raw: list[RawOutput] = []

    def converted(_: Rewriter, results: list[relax.Expr]) -> list[relax.Expr]:
        reals = [inputs[result].real() if result in inputs else result for result in results]
        raw.extend(
            raw_output(rewriter, real, outputs[spec.name]) if spec.name in outputs else RawOutput(real)
            for spec, real in zip(model.outputs, reals, strict=True)
        )
        return [one.expr for one in raw]

    params = [inputs[var].param if var in inputs else var for var in main.params]
    module = rewriter.run(rule, converted, params=params)
    return Model(
        module,
        tuple(
            inputs[var].spec if var in inputs else spec
            for spec, var in zip(model.inputs, main.params, strict=True)
        ),
        tuple(
            _output_spec(spec.name, one, outputs.get(spec.name))
            for spec, one in zip(model.outputs, raw, strict=True)
        ),
        model.name,
        {**model.source, **_picture_sizes(model, named)},
        contract,
    )


def _picture_sizes(model: Model, contracts: dict[str, InputContract]) -> dict[str, object]:
    """Height and width of the pictures in the frames, by input."""
    sizes = {}
    for spec in model.inputs:
        if spec.name in contracts and not contracts[spec.name].is_raw:
            sizes[spec.name] = list(contracts[spec.name].extents(spec.shape))
    return {"picture_sizes": sizes} if sizes else {}


def _output_spec(name: str, raw: RawOutput, contract: OutputContract | None) -> TensorSpec:
    shape, dtype = tuple(int(dim) for dim in raw.expr.ty.shape), DType.parse(str(raw.expr.ty.dtype))
    raw_format = contract.format if contract and contract.format != "RAWDATA_F32_NHWC" else ""
    return TensorSpec(name, shape, dtype, raw_format, raw.scale, raw.zero)


class _Input:
    """One input: the old one's numbers, made of what is fed.

    Attributes:
        spec: What is fed.
        param: The new parameter of ``main``.
    """

    def __init__(self, rewriter: Rewriter, old: TensorSpec, contract: InputContract, dtype: str) -> None:
        self._rewriter, self._old, self._contract = rewriter, old, contract
        fed = contract.input_format if contract.input_format != "RAWDATA_F32_NHWC" else ""
        self.spec = TensorSpec(old.name, self._raw_shape(), DType.parse(dtype), fed)
        self.param = relax.Var(old.name, relax.TensorType(self.spec.shape, dtype))
        self._real: relax.Expr | None = None

    def _raw_shape(self) -> tuple[int, ...]:
        return self._old.shape

    def quantized(self, call: relax.Call) -> relax.Expr:
        """What stands for the input's quantised value."""
        return relax.Call(call.op, [self.real(), *call.args[1:]], call.attrs)

    def real(self) -> relax.Expr:
        """What stands for the input's numbers."""
        if self._real is None:
            self._real = self._make_real()
        return self._real

    def _make_real(self) -> relax.Expr:
        """The integers that are fed, as the numbers that the model takes."""
        dtype = self._old.dtype.label
        return self.param if dtype == self.spec.dtype.label else self._emit(R.astype(self.param, dtype))

    def _emit(self, expr: relax.Expr) -> relax.Expr:
        return self._rewriter.emit(expr, self._old.name)


class _Integers(_Input):
    """Quantised integers that are fed as they are."""

    def quantized(self, call: relax.Call) -> relax.Expr:
        found, fed = str(call.attrs.out_dtype), self.spec.dtype.label
        if found != fed:
            raise ModelError(
                f"input '{self._old.name}': {self._contract.input_format} feeds {fed}, but the model "
                f"quantises it to {found}",
                f"calibrate the input with {8 * self.spec.dtype.itemsize} bits, or feed RAWDATA_F32_NHWC",
            )
        scale, zero = constant(call.args[1]), constant(call.args[2])
        if scale is not None and zero is not None and scale.size == zero.size == 1:
            self.spec = replace(self.spec, scale=float(scale.flat[0]), zero=int(zero.flat[0]))
        return self.param

    def _make_real(self) -> relax.Expr:
        raise ModelError(
            f"input '{self._old.name}': {self._contract.input_format} with quantizations=TRUE feeds "
            "quantised integers, but the model reads the input as float",
            "set quantizations=FALSE to feed whole numbers, or feed RAWDATA_F32_NHWC",
        )


class _Picture(_Input):
    """A camera's frame."""

    def __init__(self, rewriter: Rewriter, old: TensorSpec, contract: InputContract, dtype: str) -> None:
        self._frame = Frame(contract, old.shape)
        self._pixels: relax.Expr | None = None
        super().__init__(rewriter, old, contract, dtype)

    def _raw_shape(self) -> tuple[int, ...]:
        return self._contract.frame_shape(self._old.shape)

    @property
    def _axis(self) -> int:
        return 1 if self._contract.is_planar else 3

    def pixels(self) -> relax.Expr:
        """The picture as the model was trained on."""
        if self._pixels is None:
            pixels = self._frame.pixels(self.param, self._emit)
            self._pixels = pixels if pixels is self.param else self._emit(pixels)
        return self._pixels

    def quantized(self, call: relax.Call) -> relax.Expr:
        scale, zero = constant(call.args[1]), constant(call.args[2])
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return super().quantized(call)
        integers = quantized_pixels(
            self.pixels(),
            self._contract,
            float(np.float64(scale.ravel()[0])),
            int(zero.ravel()[0]),
            str(call.attrs.out_dtype),
            self._axis,
        )
        return integers if isinstance(integers, relax.Var) else self._emit(integers)

    def _make_real(self) -> relax.Expr:
        return self._emit(real_pixels(self.pixels(), self._contract, self._axis))


def _make_input(rewriter: Rewriter, spec: TensorSpec, contract: InputContract, is_index: bool) -> _Input:
    """How the input's bytes are taken.

    Raises:
        ModelError: The input does not go with its format.
    """
    if contract.input_format not in RAW_FORMATS:
        _check_picture(spec, contract)
        return _Picture(rewriter, spec, contract, "uint8")
    dtype = RAW_DTYPE[contract.input_format]
    if dtype == "float32" and not spec.dtype.is_float:
        dtype = spec.dtype.label
    if dtype == "uint16" and not is_index:
        raise ModelError(
            f"input '{spec.name}': RAWDATA_U16_NHWC is for indices that an embedding reads, but other "
            f"operators read it",
            "use RAWDATA_S16_NHWC or RAWDATA_F32_NHWC",
        )
    if dtype == "int16" and spec.dtype.is_float and contract.quantize:
        return _Integers(rewriter, spec, contract, dtype)
    return _Input(rewriter, spec, contract, dtype)


def _is_index(rewriter: Rewriter, reader: relax.Expr, var: relax.Var) -> bool:
    """Whether an operator uses the input to pick rows of a table."""
    if rewriter.attribute(reader, GATHER_ATTR):
        return bool(used_vars(reader)[-1].same_as(var))
    return op_name(reader) in ("relax.take", "relax.astype")


def _check_picture(spec: TensorSpec, contract: InputContract) -> None:
    channels = contract.channels
    axis = 1 if contract.is_planar else 3
    if len(spec.shape) != 4 or spec.shape[axis] != channels:
        wanted = f"[N, {channels}, H, W]" if axis == 1 else f"[N, H, W, {channels}]"
        raise ModelError(
            f"input '{spec.name}': {contract.training_format} pictures have the shape {wanted}, "
            f"found {list(spec.shape)}",
            "correct input_layouts or training_input_formats, or use a RAWDATA format",
        )
    if not spec.dtype.is_float:
        raise ModelError(f"input '{spec.name}': pictures become float numbers, found {spec.dtype.label}")
