"""Write a compiled program as an offline image."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import ImageError
from tvm_ipu.base.program import ALIGNMENT, Arg, Call, Pieces, Plan, Program, Space
from tvm_ipu.base.target import Target
from tvm_ipu.base.tensor import TensorSpec
from tvm_ipu.image import schema
from tvm_ipu.image.container import Sections, container_parts, write_container


def write_image(program: Program, path: str | os.PathLike[str]) -> None:
    """Write ``program`` to ``path``; the file appears whole or not at all.

    Raises:
        ImageError: The program breaks a rule of the format, or the file cannot be written.
    """
    sections = _Encoder(program).encode()
    write_container(Path(path), schema.Kind.IMAGE, schema.SECTIONS, sections)


def image_parts(program: Program) -> Pieces:
    """Bytes of the file that ``write_image`` writes.

    Raises:
        ImageError: The program breaks a rule of the format.
    """
    return container_parts(schema.Kind.IMAGE, schema.SECTIONS, _Encoder(program).encode())


class _Strings:
    """The strings section: each distinct string once."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._offsets = {"": 0}

    def add(self, text: str) -> int:
        """Offset of ``text``, appended if it is new."""
        if text not in self._offsets:
            if "\0" in text:
                raise ImageError(f"name {text!r} holds a zero byte")
            self._offsets[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self._offsets[text]


class _Table:
    """A section of records."""

    def __init__(self, record: schema.Record) -> None:
        self.record = record
        self.data = bytearray()

    def __len__(self) -> int:
        return len(self.data) // self.record.size

    def add(self, **values: int) -> None:
        self.data += self.record.pack(**values)


class _Encoder:
    """Collects the sections of one program."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._strings = _Strings()
        self._tables = {s.type: _Table(s.record) for s in schema.SECTIONS if s.record}
        self._kernels = {name: i for i, name in enumerate(program.symbols)}

    def encode(self) -> Sections:
        """Bytes of every section.

        Raises:
            ImageError: The program breaks a rule of the format.
        """
        program = self._program
        if not program.plans:
            raise ImageError("a program needs at least one plan")
        try:
            self._add_target(program.target)
            self._add_kernels()
            for plan in program.plans:
                self._add_plan(plan)
            metadata = json.dumps(program.metadata, ensure_ascii=False, sort_keys=True).encode()
        except (struct.error, ValueError, TypeError) as err:
            raise ImageError(f"the program does not fit the image format: {err}") from err
        sections: dict[schema.SectionType, bytes | Pieces] = {
            **{kind: bytes(table.data) for kind, table in self._tables.items()},
            schema.SectionType.STRINGS: bytes(self._strings.data),
            schema.SectionType.METADATA: metadata,
            schema.SectionType.CONSTS: program.consts,
            schema.SectionType.CODE: program.code,
            schema.SectionType.WEIGHTS: program.weights,
        }
        if program.contract != Contract():
            contract = json.dumps(program.contract.to_json(), sort_keys=True)
            sections[schema.SectionType.PREPROCESSING] = contract.encode()
        return sections

    def _add_target(self, target: Target) -> None:
        add = self._strings.add
        self._tables[schema.SectionType.TARGET].add(
            name=add(target.name),
            arch=add(target.arch),
            triple=add(target.triple),
            cpu=add(target.cpu),
            features=add(",".join(target.features)),
            requires=add(",".join(target.requires)),
            numerics=add(target.numerics),
            pointer_bits=target.pointer_bits,
        )

    def _add_kernels(self) -> None:
        size = len(self._program.code)
        for name, offset in self._program.symbols.items():
            if not 0 <= offset < size:
                raise ImageError(f"kernel '{name}' starts at {offset}, outside {size} bytes of code")
            self._tables[schema.SectionType.KERNELS].add(name=self._strings.add(name), offset=offset)

    def _add_plan(self, plan: Plan) -> None:
        tensors = self._tables[schema.SectionType.TENSORS]
        calls = self._tables[schema.SectionType.CALLS]
        self._tables[schema.SectionType.PLANS].add(
            input_begin=len(tensors),
            input_count=len(plan.inputs),
            output_begin=len(tensors) + len(plan.inputs),
            output_count=len(plan.outputs),
            call_begin=len(calls),
            call_count=len(plan.calls),
            arena_size=plan.arena_size,
            scratch_size=plan.scratch_size,
            tensor_bytes=plan.tensor_bytes,
        )
        offsets = plan.input_offsets + plan.output_offsets
        for spec, offset in zip(plan.inputs + plan.outputs, offsets, strict=True):
            self._add_tensor(spec, offset, plan)
        for call in plan.calls:
            self._add_call(call, plan)

    def _add_tensor(self, spec: TensorSpec, offset: int, plan: Plan) -> None:
        if offset % ALIGNMENT or not 0 <= offset <= plan.arena_size - spec.nbytes:
            raise ImageError(
                f"tensor '{spec.name}' of {spec.nbytes} bytes cannot lie at {offset} in the arena"
            )
        dims = self._tables[schema.SectionType.DIMS]
        self._tables[schema.SectionType.TENSORS].add(
            name=self._strings.add(spec.name),
            dtype=spec.dtype,
            rank=len(spec.shape),
            dims_begin=len(dims),
            nbytes=spec.nbytes,
            arena_offset=offset,
            format=self._strings.add(spec.format),
            scale=int(np.float32(spec.scale).view(np.uint32)),
            zero=spec.zero,
        )
        for extent in spec.shape:
            dims.add(extent=extent)

    def _add_call(self, call: Call, plan: Plan) -> None:
        if call.kernel not in self._kernels:
            raise ImageError(f"layer '{call.layer}': kernel '{call.kernel}' has no code")
        if call.extent < 0 or call.grain < min(call.extent, 1):
            raise ImageError(f"layer '{call.layer}': extent {call.extent} with grain {call.grain}")
        args = self._tables[schema.SectionType.ARGS]
        self._tables[schema.SectionType.CALLS].add(
            kernel=self._kernels[call.kernel],
            arg_begin=len(args),
            arg_count=len(call.args),
            extent=call.extent,
            grain=max(call.grain, 1),
            layer=self._strings.add(call.layer),
            op=self._strings.add(call.op),
            template=self._strings.add(call.template),
            flops=call.flops,
            bytes=call.bytes,
        )
        for arg in call.args:
            self._check_arg(arg, plan, call.layer)
            args.add(space=arg.space, index=arg.index, offset=arg.offset, size=arg.size)

    def _check_arg(self, arg: Arg, plan: Plan, layer: str) -> None:
        where = f"layer '{layer}': {arg.space.name.lower()} {arg.index}"
        tensors = {Space.INPUT: plan.inputs, Space.OUTPUT: plan.outputs}.get(arg.space)
        if arg.index not in range(len(tensors) if tensors is not None else 1):
            raise ImageError(f"{where} does not exist")
        if tensors is not None:
            limit = tensors[arg.index].nbytes
        elif arg.space == Space.ARENA:
            limit = plan.arena_size
        else:
            limit = len(self._program.weights if arg.space == Space.WEIGHTS else self._program.consts)
        if arg.offset < 0 or arg.size < 0 or arg.offset + arg.size > limit:
            raise ImageError(
                f"{where} has {limit} bytes; the call uses {arg.offset} to {arg.offset + arg.size}"
            )
