"""Functions written in LLVM's own language, for instructions on types that TVM cannot hand to LLVM.

A kernel calls them as external functions; code generation puts their text beside the kernel
(``import_functions``), and LLVM inlines them. They are the only external functions of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm_ffi
from tvm import ir, tirx
from tvm.tirx import Expr


@dataclass(frozen=True)
class Function:
    """One such function.

    Attributes:
        name: Its name.
        dtype: Type of its result.
        text: Definition and the declarations that it needs.
    """

    name: str
    dtype: str
    text: str

    @property
    def lanes(self) -> int:
        """Elements of the result."""
        return int(self.dtype.partition("x")[2])

    def call(self, *args: Expr) -> Expr:
        """A call."""
        return tirx.call_pure_extern(self.dtype, self.name, *args)


DOT_BF16 = Function(
    "tvm_ipu_dot_bf16",
    "float32x16",
    """
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define <16 x float> @tvm_ipu_dot_bf16(<16 x float> %sums, <32 x i16> %left, <32 x i16> %right) alwaysinline {
  %a = bitcast <32 x i16> %left to <32 x bfloat>
  %b = bitcast <32 x i16> %right to <32 x bfloat>
  %new = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(
    <16 x float> %sums, <32 x bfloat> %a, <32 x bfloat> %b)
  ret <16 x float> %new
}
""",
)
"""Add the products of 32 pairs of bfloat16 numbers, two to each of 16 float32 sums."""

NARROW_BF16 = Function(
    "tvm_ipu_narrow_bf16",
    "uint16x16",
    """
declare <16 x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.512(<16 x float>)
define <16 x i16> @tvm_ipu_narrow_bf16(<16 x float> %value) alwaysinline {
  %narrow = call <16 x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.512(<16 x float> %value)
  %bits = bitcast <16 x bfloat> %narrow to <16 x i16>
  ret <16 x i16> %bits
}
""",
)
"""Round 16 float32 numbers to bfloat16, to nearest even; a NaN stays one, subnormal numbers become zero."""

DOT_BF16_NEON = Function(
    "tvm_ipu_dot_bf16_neon",
    "float32x4",
    """
declare <4 x float> @llvm.aarch64.neon.bfdot.v4f32.v8bf16(<4 x float>, <8 x bfloat>, <8 x bfloat>)
define <4 x float> @tvm_ipu_dot_bf16_neon(<4 x float> %s, <8 x i16> %left, <8 x i16> %right) alwaysinline {
  %a = bitcast <8 x i16> %left to <8 x bfloat>
  %b = bitcast <8 x i16> %right to <8 x bfloat>
  %r = call <4 x float> @llvm.aarch64.neon.bfdot.v4f32.v8bf16(<4 x float> %s,
    <8 x bfloat> %a, <8 x bfloat> %b)
  ret <4 x float> %r
}
""",
)
"""Add the products of 8 pairs of bfloat16 numbers, two to each of 4 float32 sums."""

OPAQUE = Function(
    "tvm_ipu_opaque",
    "int32",
    """
define i32 @tvm_ipu_opaque(i32 %value) alwaysinline {
  %same = call i32 asm "", "=r,0"(i32 %value)
  ret i32 %same
}
""",
)
"""The number itself, of which LLVM knows nothing. No instruction."""

TABLE_BYTES = Function(
    "tvm_ipu_table_bytes",
    "uint8x64",
    """
declare <32 x i16> @llvm.x86.avx512.vpermi2var.hi.512(<32 x i16>, <32 x i16>, <32 x i16>)
define <32 x i16> @tvm_ipu_table_words(<32 x i16> %t0, <32 x i16> %t1, <32 x i16> %t2, <32 x i16> %t3,
    <32 x i16> %at) alwaysinline {
  %word = lshr <32 x i16> %at, splat (i16 1)
  %low = call <32 x i16> @llvm.x86.avx512.vpermi2var.hi.512(<32 x i16> %t0, <32 x i16> %word, <32 x i16> %t1)
  %high = call <32 x i16> @llvm.x86.avx512.vpermi2var.hi.512(<32 x i16> %t2, <32 x i16> %word, <32 x i16> %t3)
  %is_low = icmp ult <32 x i16> %at, splat (i16 128)
  %pair = select <32 x i1> %is_low, <32 x i16> %low, <32 x i16> %high
  %odd = and <32 x i16> %at, splat (i16 1)
  %shift = shl <32 x i16> %odd, splat (i16 3)
  %byte = lshr <32 x i16> %pair, %shift
  %result = and <32 x i16> %byte, splat (i16 255)
  ret <32 x i16> %result
}
define <64 x i8> @tvm_ipu_table_bytes(<64 x i8> %b0, <64 x i8> %b1, <64 x i8> %b2, <64 x i8> %b3,
    <64 x i8> %bytes) alwaysinline {
  %t0 = bitcast <64 x i8> %b0 to <32 x i16>
  %t1 = bitcast <64 x i8> %b1 to <32 x i16>
  %t2 = bitcast <64 x i8> %b2 to <32 x i16>
  %t3 = bitcast <64 x i8> %b3 to <32 x i16>
  %at = bitcast <64 x i8> %bytes to <32 x i16>
  %even = and <32 x i16> %at, splat (i16 255)
  %odd = lshr <32 x i16> %at, splat (i16 8)
  %first = call <32 x i16> @tvm_ipu_table_words(<32 x i16> %t0, <32 x i16> %t1, <32 x i16> %t2,
    <32 x i16> %t3, <32 x i16> %even)
  %second = call <32 x i16> @tvm_ipu_table_words(<32 x i16> %t0, <32 x i16> %t1, <32 x i16> %t2,
    <32 x i16> %t3, <32 x i16> %odd)
  %upper = shl <32 x i16> %second, splat (i16 8)
  %both = or <32 x i16> %first, %upper
  %result = bitcast <32 x i16> %both to <64 x i8>
  ret <64 x i8> %result
}
""",
)
"""64 bytes looked up in a table of 256, given as its four quarters: pairs of bytes are looked up as words, by
AVX-512 BW, and shifted."""

FUNCTIONS = {
    function.name: function for function in (DOT_BF16, DOT_BF16_NEON, NARROW_BF16, OPAQUE, TABLE_BYTES)
}


def import_functions(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """The kernel, with the text of those functions that it calls."""
    called: dict[str, None] = {}

    def look(call: ir.Call) -> None:
        if getattr(call.op, "name", "") == "tirx.call_pure_extern":
            called[str(call.args[0].value)] = None

    tvm_ffi.structural_walk(func.body, (ir.Call, look))
    body = func.body
    for name in FUNCTIONS.keys() & called.keys():
        text = ir.StringImm(FUNCTIONS[name].text)
        body = tirx.AttrStmt(tirx.IntImm("int32", 0), "pragma_import_llvm", text, body)
    return func.with_body(body) if called else func
