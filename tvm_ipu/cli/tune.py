"""``tvm-ipu tune``: kernels of a model get faster by measuring."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.files import check_output
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.cli.arguments import (
    add_input_shapes,
    add_model,
    add_precision,
    add_target,
    add_tuning_records,
    checked_output,
    comma_list,
    count,
    given_model,
    numbers,
    positive,
)
from tvm_ipu.cli.sources import MODELS, add_arrays, add_source, load_options
from tvm_ipu.cli.terminal import Progress as Loading, print_facts, print_table, progress

if TYPE_CHECKING:
    from rich.table import Table

    from tvm_ipu.tune.runner import Tracker
    from tvm_ipu.tune.search import Progress, Report
    from tvm_ipu.tune.tuner import TuneOptions, TuneReport

TUNERS = {"xgb": "xgb", "xgb_knob": "xgb", "xgb_itervar": "xgb", "xgb_curve": "xgb", "random": "random"}
"""Names that TVM's own command has used -> ours."""

ROWS = 20
"""Tasks that are shown while the search runs."""

HEADER = ("task", ">calls", ">own GFLOP/s", ">best GFLOP/s", ">trials", ">time (s)", ">gain", "state")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_model(parser, "MODEL", f"model: {MODELS}")
    add_target(parser, None)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="RECORDS",
        help="file of records to write, and to start from if it is there; by default the model's name with "
        ".records.jsonl, in this folder",
    )
    add_input_shapes(parser)
    add_precision(parser)
    parser.add_argument(
        "-b", "--batch", type=numbers, default=(), metavar="N,N", help="batch sizes, as for compile"
    )
    add_arrays(parser, "--outputs")
    add_source(parser)
    _add_search(parser)
    _add_measurement(parser)


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tasks",
        type=comma_list,
        default=(),
        metavar="LIST",
        help="what to tune: numbers, templates or patterns of names, joined by commas; 'list' shows them",
    )
    parser.add_argument(
        "--trials", type=positive, default=64, metavar="N", help="decisions tried for a task (default: 64)"
    )
    parser.add_argument(
        "--time-budget",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds for the search (default: no limit)",
    )
    parser.add_argument(
        "--early-stopping",
        type=positive,
        default=32,
        metavar="N",
        help="leave a task after N decisions without a better one (default: 32)",
    )
    parser.add_argument(
        "--tuner",
        choices=TUNERS,
        default="xgb",
        help="what picks decisions to try: xgb and its variants for MetaSchedule's cost model (default: xgb)",
    )
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of random choices (default: 0)")
    add_tuning_records(parser, "records of an earlier run to start from; may be repeated")


def _add_measurement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=numbers,
        default=(),
        metavar="N,N",
        help="numbers of threads that a decision is judged by, together (default: 1 and all cores)",
    )
    parser.add_argument(
        "--repeat", type=positive, default=7, metavar="N", help="timed runs of a decision (default: 7)"
    )
    parser.add_argument(
        "--min-repeat-ms",
        type=float,
        default=0.0,
        metavar="MS",
        help="time that these runs take at least; there are more of them where they are shorter (default: 0)",
    )
    parser.add_argument(
        "--timeout", type=positive, default=20, metavar="S", help="seconds for one decision (default: 20)"
    )
    parser.add_argument(
        "-j",
        "--jobs",
        "--parallel",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="decisions compiled at the same time; they are measured one by one (default: one a core)",
    )
    parser.add_argument(
        "--rpc-tracker", metavar="HOST:PORT", help="measure on a board that TVM's RPC tracker lends"
    )
    parser.add_argument("--rpc-key", metavar="KEY", help="kind of board to ask the tracker for")
    parser.add_argument("--number", type=_refuse_number, help=argparse.SUPPRESS)
    parser.add_argument("--desired-layout", type=_refuse_layout, help=argparse.SUPPRESS)


def _refuse_number(text: str) -> int:
    raise argparse.ArgumentTypeError("caches are emptied before every run; say --repeat instead")


def _refuse_layout(text: str) -> str:
    raise argparse.ArgumentTypeError("layouts are not a choice: every model is NHWC inside")


def execute(args: argparse.Namespace) -> int:
    """Tune, and print what was found."""
    from tvm_ipu import driver

    model = given_model(args, "MODEL")
    options = CompileOptions(precision=args.precision, jobs=args.jobs)
    common = {"input_shapes": args.input_shapes, "batches": args.batch, "loading": load_options(args)}
    target = args.target or driver.default_target(model)
    if args.tasks == ("list",):
        tasks = driver.list_tasks(model, target, options=options, **common)
        rows = [(n, task.name, task.calls, len(task.decisions)) for n, task in enumerate(tasks)]
        print_table((">number", "task", ">calls", ">decisions"), rows)
        return 0
    output = checked_output(args.output or Path(f"{model.stem}.records.jsonl"))
    check_output("--output", output, model)
    tuning = _options(args)
    with _display(args.verbose) as (loading, report):
        found = driver.tune_model(
            model,
            target,
            output,
            options=options,
            tuning=tuning,
            progress=loading,
            report=report,
            **common,
        )
    print_table(HEADER, [_row(task) for task in found.tasks])
    print_facts(_facts(found))
    return 130 if found.interrupted else 0


def _options(args: argparse.Namespace) -> TuneOptions:
    from tvm_ipu.tune.measure import Effort
    from tvm_ipu.tune.search import Limits
    from tvm_ipu.tune.tuner import TuneOptions

    return TuneOptions(
        limits=Limits(
            trials=args.trials,
            seconds=args.time_budget,
            early_stopping=args.early_stopping,
            tuner=TUNERS[args.tuner],
            seed=args.seed,
        ),
        effort=Effort(args.threads, args.repeat, args.min_repeat_ms, args.jobs),
        timeout=float(args.timeout),
        tasks=args.tasks,
        prior=tuple(args.tuning_records),
        tracker=_tracker(args),
    )


def _tracker(args: argparse.Namespace) -> Tracker | None:
    from tvm_ipu.tune.runner import Tracker

    if not args.rpc_tracker:
        if args.rpc_key:
            raise OptionError("--rpc-key: there is no --rpc-tracker HOST:PORT to ask")
        return None
    host, _, port = args.rpc_tracker.rpartition(":")
    if not host or not port.isdigit():
        raise OptionError(f"--rpc-tracker: '{args.rpc_tracker}' is not of the form HOST:PORT")
    if not args.rpc_key:
        raise OptionError("--rpc-tracker needs --rpc-key KEY, the kind of board to ask for")
    return Tracker(host, int(port), args.rpc_key)


def _row(task: Progress) -> tuple[str, ...]:
    """A task as the table shows it; speeds on the fewest threads that were measured."""
    speeds = ["", ""]
    if task.result is not None and task.result.microseconds:
        own, best = next(iter(task.result.microseconds.values()))
        best = best if task.gain else own
        speeds = [f"{task.task.flops / max(t, 1e-3) / 1e3:.1f}" for t in (own, best)]
    gain = f"{100 * task.gain:.1f} %" if task.gain else ""
    state = task.done + (f"; {len(task.wrong)} failed" if task.wrong else "")
    return task.task.name, str(task.task.calls), *speeds, str(task.trials), f"{task.seconds:.1f}", gain, state


def _facts(found: TuneReport) -> list[tuple[str, str]]:
    facts = [("records", str(found.output))]
    if found.whole:
        facts += [
            (f"model, {threads} thread{'s' * (threads > 1)}", f"{own:.3f} -> {tuned:.3f} ms")
            for threads, (own, tuned) in found.whole.milliseconds.items()
        ]
        facts.append(
            (
                "decisions",
                f"{len(found.whole.kept)} kept, {len(found.whole.dropped)} gain nothing in the model",
            )
        )
    if found.interrupted:
        facts.append(("interrupted", "what was found is kept; run again to go on"))
    return facts


@contextmanager
def _display(verbose: bool) -> Iterator[tuple[Loading | None, Report | None]]:
    """Shows a run: a table on a terminal, a line a step with ``verbose``, else nothing."""
    if verbose:
        with progress(verbose) as loading:
            yield loading, lambda _, changed: print("  ".join(_row(changed)), file=sys.stderr)
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), transient=True, refresh_per_second=2) as live:
            yield lambda what, done, total: live.update(what), lambda tasks, _: live.update(_table(tasks))
    else:
        yield None, None


def _table(tasks: Sequence[Progress]) -> Table:
    """The tasks that take most of the model's time."""
    from rich.table import Table

    done = sum(bool(task.done) for task in tasks)
    table = Table(title=f"{done} of {len(tasks)} tasks done, {sum(task.trials for task in tasks)} trials")
    for name in HEADER:
        right = name.startswith(">")
        table.add_column(name.removeprefix(">"), justify="right" if right else "left", no_wrap=right)
    for task in sorted(tasks, key=lambda task: -task.share)[:ROWS]:
        table.add_row(*_row(task))
    return table
