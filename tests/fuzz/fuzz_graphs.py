"""Compiles random graphs and compares: ``python -m tests.fuzz.fuzz_graphs --seconds 60``.

Graph number ``n`` is a function of the seed and ``n``, and of nothing that was found before. Its image, run
by the C runtime, is compared with onnxruntime; or it is calibrated, and the fixed simulator is compared
with its image. A difference is a finding, and so are an exception that is no error of ``base.errors``, a
crash and more than three minutes. A finding is made smaller by leaving out nodes, as long as the fault
stays the same, and kept below ``build/fuzz-graphs``; ``--replay`` checks it again.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import multiprocessing
import os
import pickle
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.fuzz_files import LOG, _ending, summary
from tests.fuzz.graph_modes import MODES, REFUSED, Case, check, make

WALL = 180
"""Seconds that one graph may take, before it is made smaller."""
WORK = Path("build") / "fuzz-graphs"
SMALLER = "smaller"


def outcome(case: Case) -> str:
    """What came of a graph."""
    with tempfile.TemporaryDirectory(prefix="fuzz-graphs-") as folder:
        try:
            return check(case, Path(folder))
        except Exception:
            return traceback.format_exc()


def kind(fault: str) -> str:
    """The same for faults of the same kind."""
    return summary(fault) if "Traceback" in fault else "wrong" if fault else ""


def smaller(case: Case, fault: str) -> tuple[Case, str]:
    """The graph with as few nodes as still have the fault; what they got from others are inputs then."""
    wanted = kind(fault)
    while True:
        for node in reversed(case.graph.nodes):
            rest = [one for one in case.graph.nodes if one is not node]
            if not rest:
                continue
            less = replace(case, graph=case.graph.part(rest))
            found = outcome(less)
            if not found.startswith(REFUSED) and kind(found) == wanted:
                case, fault = less, found
                break
        else:
            return case, fault


def work(seed: str, start: int, only: str, folder: Path, connection: Connection[Any, Any]) -> None:
    """Check graphs from number ``start`` on, and tell of each: its number, what came of it, and the graph."""
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable(log)
    warnings.simplefilter("ignore")
    for number in itertools.count(start):
        os.truncate(folder / LOG, 0)
        connection.send((number, None, None))
        case = make(seed, number, only)
        fault = outcome(case)
        if fault and not fault.startswith(REFUSED):
            connection.send((number, SMALLER, None))
            case, fault = smaller(case, fault)
            connection.send((number, fault, pickle.dumps(case)))
        else:
            connection.send((number, fault, None))


class Run:
    """Graphs, one after the other; a worker follows another when that has crashed."""

    def __init__(self, seed: str, start: int, only: str = "") -> None:
        self.seed, self.start, self.only = seed, start, only
        self.number = start
        self.refused: dict[str, list[int]] = {}
        self.findings: dict[str, int] = {}

    def run(self, seconds: float, count: int) -> None:
        """Go on until the time is over, or all graphs are done."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.number < self.start + count:
            with tempfile.TemporaryDirectory(prefix="fuzz-graphs-") as folder:
                self._one_worker(Path(folder), end, self.start + count)

    def _one_worker(self, folder: Path, end: float, last: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        worker = context.Process(target=work, args=(self.seed, self.number, self.only, folder, theirs))
        worker.start()
        theirs.close()
        try:
            self._follow(ours, end, last)
        except EOFError:
            worker.join()
            log = (folder / LOG).read_text(errors="replace")
            self._keep(f"{_ending(worker.exitcode or 0)}\n{log}", make(self.seed, self.number, self.only))
            self.number += 1
        finally:
            worker.kill()
            worker.join()
            ours.close()

    def _follow(self, connection: Connection[Any, Any], end: float, last: int) -> None:
        limit = WALL
        while self.number < last and time.monotonic() < end:
            if not connection.poll(limit):
                self._keep(f"no answer within {limit} s", make(self.seed, self.number, self.only))
                self.number += 1
                return
            self.number, fault, case = connection.recv()
            limit = 10 * WALL if fault == SMALLER else WALL
            if case is not None:
                self._keep(fault, pickle.loads(case))
            elif fault and fault.startswith(REFUSED):
                reason = re.sub(r"'.*?'|[\d.]+", "…", fault)
                self.refused.setdefault(reason, []).append(self.number)
            if fault is not None and fault != SMALLER:
                self.number += 1

    def _keep(self, fault: str, case: Case) -> None:
        """Keep the first graph of each fault."""
        key = name_of(fault, case)
        self.findings[key] = self.findings.get(key, 0) + 1
        if self.findings[key] > 1:
            return
        print(f"graph {self.number}: {key}", flush=True)
        folder = WORK / f"{self.number}-{re.sub(r'[^0-9A-Za-z.]+', '-', key)[:80]}"
        keep(folder, case, f"seed {self.seed}, graph {self.number}", fault)


def keep(folder: Path, case: Case, where: str, fault: str) -> None:
    """Write a finding: the model, its inputs, what was expected, and how to check it again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    graph = case.graph
    (folder / "graph.onnx").write_bytes(graph.model().SerializeToString())
    np.savez(folder / "inputs.npz", **graph.feeds())
    np.savez(folder / "expected.npz", **{name: graph.tensors[name].array for name in graph.outputs})
    (folder / "case.pickle").write_bytes(pickle.dumps(case))
    again = f"python -m tests.fuzz.fuzz_graphs --replay {folder}"
    text = f"{where}, {case.mode.name} {case.level}\n{again}\n\n{graph.text()}\n\n{fault}\n"
    (folder / "finding.txt").write_text(text)


def name_of(fault: str, case: Case) -> str:
    """One line for faults of a kind."""
    operators = " ".join(node.op_type for node in case.graph.nodes[:12])
    if "Traceback" in fault or fault.startswith(("crash", "no answer")):
        return f"{summary(fault)}"
    return f"{case.mode.name} {case.level}: wrong: {operators}"


def main() -> int:
    """Check graphs; 1 where there is a finding."""
    parser = argparse.ArgumentParser(prog="fuzz-graphs", description="Compares images of random graphs.")
    parser.add_argument("--seconds", type=float, default=60, help="time (default: 60)")
    parser.add_argument("--count", type=int, default=2**60, metavar="N", help="graphs, at most")
    parser.add_argument("--seed", default="0", help="another seed gives other graphs (default: 0)")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="number of the first graph")
    parser.add_argument("--only", default="", choices=list(MODES), help="one mode for all graphs")
    parser.add_argument("--show", action="store_true", help="print the graph --start and do nothing")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="check a finding again")
    args = parser.parse_args()
    if args.replay or args.show:
        case = make(args.seed, args.start, args.only)
        if args.replay:
            case = pickle.loads((args.replay / "case.pickle").read_bytes())
        print(case.mode.name, case.level, case.graph.text(), sep="\n")
        fault = "" if args.show else outcome(case)
        print(fault)
        return 1 if fault and not fault.startswith(REFUSED) else 0
    run = Run(args.seed, args.start, args.only)
    run.run(args.seconds, args.count)
    for reason, numbers in sorted(run.refused.items(), key=lambda one: -len(one[1])):
        print(f"{len(numbers)} x {reason}: graph {numbers[0]}")
    refused = sum(map(len, run.refused.values()))
    print(f"{run.number - run.start} graphs, {refused} refused, {len(run.findings)} findings")
    return 1 if run.findings else 0


if __name__ == "__main__":
    sys.exit(main())
