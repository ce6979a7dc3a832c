"""Writes docs/SUPPORTED_OPS.md: operators with their constraints, and the results of ONNX's node cases."""

from __future__ import annotations

import importlib
import inspect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import defs

PAGE = Path(__file__).resolve().parent.parent / "docs" / "SUPPORTED_OPS.md"
DOMAINS = ("", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training")

HEAD = """\
# Supported ONNX operators

<!-- Written by scripts/onnx-node-suite; do not edit. -->

Opsets 7 to {newest}. Shapes are static: every dimension must be known when a model is compiled. "Constant"
means known then: given in the model, or computed from constants and shapes alone. A node that does not meet
its operator's constraint is still supported where ONNX defines the operator by others that are.

Tensors have one of the element types bool, int8, uint8, int16, uint16, int32, uint32, int64, uint64, float16,
bfloat16, float32 and float64. The floats of 8 and 4 bits and the integers of 4 and 2 are known to Cast,
CastLike, QuantizeLinear and DequantizeLinear, and to what only moves numbers; images take and give them a
byte an element, as ml_dtypes keeps them. Integer arithmetic wraps around, integer divisions by zero give
zero, indices are clamped into their tensor: no input can make an image trap or touch memory that is not its
own.
"""


@dataclass(frozen=True)
class Result:
    """What became of one case.

    Attributes:
        name: Name of the case.
        op: Operator under test.
        status: ``passed``, ``refused`` or ``failed``.
        detail: Why it was refused, or how it failed.
        fixed: Inputs that were made constants.
        exact: The result agrees with ONNX's reference implementation in float64, but not with the stored
            data, which was rounded after every step.
        numeric: Its inputs and outputs are tensors of numbers, which the inputs decide.
    """

    name: str
    op: str
    status: str
    detail: str = ""
    fixed: tuple[str, ...] = ()
    exact: bool = False
    numeric: bool = True


def constraints() -> dict[tuple[str, str], str]:
    """Constraint of every operator that is converted, by domain and name."""
    from tvm_ipu.frontends.onnx.context import CONVERTERS
    from tvm_ipu.frontends.onnx.importer import supports
    from tvm_ipu.frontends.onnx.simplify import RULES

    importlib.import_module("tvm_ipu.frontends.onnx.ops")
    known = {("", op): _first_line(rule) for op, rule in RULES.items()}
    known |= {key: _first_line(converter) for key, converter in CONVERTERS.items()}
    for schema in defs.get_all_schemas():
        key = (schema.domain, schema.name)
        if key not in known and schema.domain in DOMAINS and not schema.deprecated:
            if schema.has_function or schema.has_context_dependent_function:
                known[key] = "Through the operators that define it."
            elif supports(*key):
                known[key] = "Through TVM's importer."
    return known


def _first_line(function: object) -> str:
    text = (inspect.getdoc(function) or "").split("\n\n")[0]
    return " ".join(text.split())


def operators_section() -> str:
    """The table of operators."""
    rows = ["## Operators", "", "| operator | constraint |", "|---|---|"]
    for (domain, op), text in sorted(
        constraints().items(), key=lambda item: (item[0][0], item[0][1].lower())
    ):
        rows.append(f"| {domain + '.' if domain else ''}{op} | {text} |")
    known = constraints()
    missing = sorted(
        f"{s.domain + '.' if s.domain else ''}{s.name}"
        for s in defs.get_all_schemas()
        if s.domain in DOMAINS and not s.deprecated and (s.domain, s.name) not in known
    )
    return "\n".join([*rows, "", f"Not supported: {', '.join(missing)}.", ""])


def cases_section(results: Sequence[Result]) -> str:
    """The results of the node cases: how many pass, and why the others are refused."""
    passed = [r for r in results if r.status == "passed"]
    fixed = [r for r in passed if r.fixed]
    exact = [r for r in passed if r.exact]
    numeric = [r for r in results if r.numeric]
    share = sum(r.status == "passed" for r in numeric) / max(len(numeric), 1)
    lines = [
        "## ONNX's node cases",
        "",
        f"Of ONNX's {len(results)} node cases (without those of expanded functions), {len(passed)} give the",
        "expected results when they are compiled into an image and run by the C runtime",
        f"(`scripts/onnx-node-suite`). In {len(fixed)} of them inputs that decide a shape, such as the shape",
        "of Reshape, were made constants with the case's values.",
        "",
        f"{len(numeric)} cases take and give tensors of numbers only and involve no chance; of these",
        f"{share:.1%} pass.",
    ]
    if exact:
        lines += [
            "",
            f"{len(exact)} of them agree with ONNX's reference implementation in float64, within the case's",
            "own tolerances, and not with the stored results, which were rounded after every step:",
            ", ".join(f"`{r.name}`" for r in exact) + ".",
        ]
    failed = [r for r in results if r.status == "failed"]
    if failed:
        lines += ["", f"{len(failed)} cases fail: " + ", ".join(f"`{r.name}`" for r in failed) + "."]
    lines += ["", "The others are refused:", "", "| reason | cases |", "|---|---|"]
    groups: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if result.status == "refused":
            groups[result.detail].append(result.name)
    for detail, names in sorted(groups.items()):
        text = detail.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {text} | {', '.join(f'`{n}`' for n in names)} |")
    return "\n".join([*lines, ""])


def update(results: Sequence[Result], check: bool) -> bool:
    """Write the page, or with ``check`` only compare it; True where it was or is now up to date."""
    newest = defs.onnx_opset_version()
    page = "\n".join([HEAD.format(newest=newest), operators_section(), cases_section(results)])
    if not check:
        PAGE.write_text(page, encoding="utf-8")
        return True
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
        return True
    print(f"{PAGE.name} is stale: run scripts/onnx-node-suite and commit what it writes")
    return False
