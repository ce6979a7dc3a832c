"""The machine that a measurement was made on."""

from __future__ import annotations

from dataclasses import asdict

from tvm_ipu.base.host import read_host


def machine() -> dict[str, object]:
    """Processor, its CPU features, caches and cores, as JSON values."""
    facts = read_host()
    return {**asdict(facts), "features": sorted(facts.features)}
