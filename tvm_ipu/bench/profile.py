"""Where an image's time goes: the time of each kernel call, and a trace that browsers show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tvm_ipu.runtime import CallTime, Session


def profile(session: Session, repeat: int) -> list[CallTime]:
    """Median time of each kernel call over ``repeat`` runs (at least one) on what the inputs hold."""
    runs = [session.profile() for _ in range(repeat)]
    medians = np.median([[call.ns for call in run] for run in runs], axis=0)
    return [replace(call, ns=round(ns)) for call, ns in zip(runs[0], medians, strict=True)]


def gflops(flops: int, ns: int) -> float:
    """Operations a second in units of 10^9; 0 where no time was seen."""
    return flops / ns if ns else 0.0


def chrome_trace(calls: Sequence[CallTime]) -> dict[str, object]:
    """The calls one after another in Chrome's trace event format (chrome://tracing, ui.perfetto.dev)."""
    events = []
    start = 0
    for call in calls:
        facts = {"template": call.template, "kernel": call.kernel, "gflops": gflops(call.flops, call.ns)}
        events.append(
            {
                "name": call.layer or call.kernel,
                "cat": call.op,
                "ph": "X",
                "ts": start / 1e3,
                "dur": call.ns / 1e3,
                "pid": 0,
                "tid": 0,
                "args": facts,
            }
        )
        start += call.ns
    return {"traceEvents": events, "displayTimeUnit": "ms"}
