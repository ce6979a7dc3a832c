"""Where an image's time goes: one line a kernel call, and a trace that browsers show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CallTime:
    """One kernel call of a plan and the time it took.

    Attributes:
        layer: The model's node, or nodes joined by ``+``.
        op: Kind of operator.
        template: Template that made the kernel, or ``generic``.
        kernel: Symbol of the kernel.
        flops: Operations of the call; a multiply-add counts two.
        ms: Milliseconds.
    """

    layer: str
    op: str
    template: str
    kernel: str
    flops: int
    ms: float

    @property
    def gflops(self) -> float:
        """Operations a second, in units of 10^9; 0 where no time was seen."""
        return self.flops / self.ms / 1e6 if self.ms else 0.0


def chrome_trace(calls: Sequence[CallTime]) -> dict[str, object]:
    """The calls, one after another, as Chrome's trace event format (chrome://tracing, ui.perfetto.dev)."""
    events = []
    start = 0.0
    for call in calls:
        events.append(
            {
                "name": call.layer or call.kernel,
                "cat": call.op,
                "ph": "X",
                "ts": start * 1e3,
                "dur": call.ms * 1e3,
                "pid": 0,
                "tid": 0,
                "args": {"template": call.template, "kernel": call.kernel, "gflops": round(call.gflops, 3)},
            }
        )
        start += call.ms
    return {"traceEvents": events, "displayTimeUnit": "ms"}
