"""The report of ``accuracy`` as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tvm_ipu.simulate.compare import BINS

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child, td.text { text-align: left; }
tr.low td { background: #d9480f22; }
svg { width: 100%; height: 9rem; background: #8881; }
.float { fill: #1c7ed688; } .fixed { fill: none; stroke: #d9480f; stroke-width: 1; }
summary { cursor: pointer; }
"""
LOW = 20.0
"""Decibels below which a tensor stands out."""


def render(report: Mapping[str, Any], title: str) -> str:
    """The page.

    Args:
        report: What ``accuracy.Report.to_json`` gives.
        title: Of the page.
    """
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{report['samples']} samples. Signal to quantisation noise below {LOW:g} dB stands out.</p>",
        _scores(report["scores"]),
        _names("Layers to give 16 bits first", report["worth_promoting"]),
        _names("Layers that were given 16 bits", report["promoted"]),
        _names("Layers that compute in float", report["float_layers"]),
        _names("Samples for which the image differs from the simulator", report["image_differs"]),
        _cost(report["cost"]),
        _tensors("Outputs", report["outputs"]),
        _tensors("Activations", report["activations"]),
        _tensors("Weights", report["weights"]),
        _histograms([*report["activations"], *report["weights"]]),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(part for part in parts if part)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table; each row has a class, which may be empty, and cells."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = [
        f"<tr{f' class={kind}' if kind else ''}>{''.join(f'<td>{escape(c)}</td>' for c in cells)}</tr>"
        for kind, cells in rows
    ]
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(lines) + "\n</tbody></table>"


def _scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    if not scores:
        return ""
    names = [key for key in next(iter(scores.values())) if key != "samples"]
    rows = [("", [model, *(f"{one[name]:.2%}" for name in names)]) for model, one in scores.items()]
    return "<h2>Classification</h2>" + _table(["model", *(n.replace("_", " ") for n in names)], rows)


def _names(title: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    return f"<h2>{escape(title)}</h2><ol>" + "".join(f"<li>{escape(name)}</li>" for name in names) + "</ol>"


def _cost(cost: Mapping[str, float]) -> str:
    if not cost:
        return ""
    rows = [("", [name.replace("_", " "), f"{value:g}"]) for name, value in cost.items()]
    return "<h2>Cost of 16 bits</h2>" + _table(["", "value"], rows)


def _tensors(title: str, tensors: Sequence[Mapping[str, Any]]) -> str:
    if not tensors:
        return ""
    rows = [("low" if (one["sqnr"] or LOW) < LOW else "", _cells(one)) for one in tensors]
    columns = ["tensor", "operator", "bits", "SQNR (dB)", "cosine", "MSE", "saturated", "range", "seen"]
    if any(one.get("range_from") for one in tensors):
        columns.append("range comes from")
        rows = [
            (kind, [*cells, ", ".join(dict.fromkeys(one.get("range_from") or []))])
            for (kind, cells), one in zip(rows, tensors, strict=True)
        ]
    return f"<h2>{escape(title)}</h2>" + _table(columns, rows)


def _cells(one: Mapping[str, Any]) -> list[str]:
    return [
        one["name"],
        one["operator"],
        str(one["bits"]),
        "exact" if one["sqnr"] is None else f"{one['sqnr']:.1f}",
        f"{one['cosine']:.6f}",
        f"{one['mse']:.3g}",
        f"{one['saturated']:.3%}",
        _interval(one["range"]),
        _interval(one["seen"]),
    ]


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.4g} .. {bounds[1]:.4g}"


def _histograms(tensors: Sequence[Mapping[str, Any]]) -> str:
    """Float numbers as bars, quantised ones as a line, over what the integers can express."""
    drawn = [_histogram(one) for one in tensors if sum(one["histogram"]["float"])]
    return "<h2>Histograms</h2>\n" + "\n".join(drawn) if drawn else ""


def _histogram(one: Mapping[str, Any]) -> str:
    counts = one["histogram"]
    top = max(max(counts["float"]), max(counts["fixed"]), 1)
    heights = {name: [(value / top) ** 0.5 * 100 for value in values] for name, values in counts.items()}
    bars = "".join(
        f'<rect class="float" x="{at}" y="{100 - height:.2f}" width="1" height="{height:.2f}"/>'
        for at, height in enumerate(heights["float"])
        if height
    )
    line = " ".join(f"{at},{100 - height:.2f}" for at, height in enumerate([*heights["fixed"], 0.0]))
    image = (
        f'<svg viewBox="0 0 {BINS} 100" preserveAspectRatio="none" role="img">{bars}'
        f'<polyline class="fixed" vector-effect="non-scaling-stroke" points="{line}"/></svg>'
    )
    return f"<details><summary>{escape(one['name'])}: {_interval(one['range'])}</summary>{image}</details>"
