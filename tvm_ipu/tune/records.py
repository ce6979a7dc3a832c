"""Tuning records: which decision was measured to be best for a template's problem, as JSON lines.

A record names its problem and its decision by their fields, so that it outlives changes of the search and is
skipped, not misread, once a template asks or decides something else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.files import parse_json, whole_file
from tvm_ipu.base.target import Target
from tvm_ipu.kernels.decisions import Choose

FORMAT = 1
_PACKAGE_DIR = Path(__file__).resolve().parent.parent
Warn = Callable[[str], None]

PLACEMENT = {"pitch"}
"""Fields of problems that say where operands lie: that is settled after tuning, so a record serves all."""


@dataclass(frozen=True)
class Record:
    """What was found for one problem.

    Attributes:
        template: Name of the kernel template.
        problem: The problem's fields.
        target: Name of the target.
        cores: Cores that the target has.
        decision: The fields of the decision that was best.
        gain: Share of the time of the template's own choice that it saves; 0 where that choice is the best.
        microseconds: By number of threads: time of the template's own choice and of ``decision``.
        trials: Decisions that were measured.
        model: Model that was tuned.
        tool: Version of tvm_ipu.
        machine: Processor that measured.
        date: When, in UTC.
    """

    template: str
    problem: dict[str, Any]
    target: str
    cores: int
    decision: dict[str, Any]
    gain: float
    microseconds: dict[str, list[float]]
    trials: int
    model: str
    tool: str
    machine: str
    date: str

    @property
    def key(self) -> str:
        """What the record is about, as text."""
        return record_key(self.template, self.problem, self.target, self.cores)


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("template", "target", "model", "tool", "machine", "date"), str),
    **dict.fromkeys(("problem", "decision", "microseconds"), dict),
    **dict.fromkeys(("cores", "trials"), int),
    "gain": (int, float),
}


def as_json(value: Any) -> dict[str, Any]:
    """Fields of a problem or decision as JSON values, without those at their defaults.

    So a record outlives a new field whose default is what was before.
    """
    given = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}
    plain = {name: as_json(part) if is_dataclass(part) else part for name, part in given.items()}
    result: dict[str, Any] = json.loads(json.dumps(plain))
    return result


def record_key(template: str, problem: dict[str, Any], target: str, cores: int) -> str:
    """Text that is equal for equal problems on equal targets."""
    what = {name: value for name, value in problem.items() if name not in PLACEMENT}
    return json.dumps([template, target, cores, what], sort_keys=True)


def problem_key(template: str, problem: Any, target: Target) -> str:
    """``record_key`` of a template's problem."""
    return record_key(template, as_json(problem), target.machine, target.cores)


def read_records(path: Path, warn: Warn) -> list[Record]:
    """Records of a file; lines that are none are left out with a warning.

    Raises:
        OptionError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "not a text file"
        raise OptionError(f"--tuning-records: cannot read '{path}': {reason}") from err
    records = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            record = _parse(line)
            if record is None:
                warn(f"{path}, line {number}: not a tuning record of format {FORMAT}; skipped")
            else:
                records.append(record)
    return records


def _parse(line: str) -> Record | None:
    try:
        data = parse_json(line)
    except ValueError:
        return None
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT or data.keys() != _TYPES.keys():
        return None
    if not all(isinstance(data[name], kind) for name, kind in _TYPES.items()):
        return None
    return Record(**data)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Replace ``path`` by a file of the records; a reader sees the old file or the new one.

    Raises:
        OSError: It cannot be written.
    """
    with whole_file(path) as file:
        for record in records:
            file.write(json.dumps({"format": FORMAT, **asdict(record)}).encode() + b"\n")


def shipped_records(target: Target) -> list[Path]:
    """Files of records that come with this version for ``target``: in the wheel, or in the source tree."""
    folders = (_PACKAGE_DIR / "_tuning_logs", _PACKAGE_DIR.parent / "tuning_logs")
    return [file for folder in folders for file in sorted((folder / target.machine).glob("*.jsonl"))]


class Records:
    """Looks up decisions.

    Args:
        records: Of records for the same problem, the last one counts.
        target: Chip to compile for.
        warn: Told of records that no longer fit.

    Attributes:
        used: Records whose decisions were taken.
    """

    def __init__(self, records: Iterable[Record], target: Target, warn: Warn) -> None:
        self._by_key = {record.key: record for record in records}
        self._target = target
        self._warn = warn
        self.used: dict[str, Record] = {}

    def choose(self, template: str, problem: Any, decisions: Sequence[Any]) -> Any:
        """The recorded decision, or the template's own where there is none that fits (``Choose``)."""
        key = problem_key(template, problem, self._target)
        record = self._by_key.get(key)
        if record is None:
            return decisions[0]
        decision = find_decision(record.decision, decisions)
        if decision is None:
            del self._by_key[key]
            self._warn(
                f"tuning record of {record.date} for {template} {problem} no longer fits: "
                f"{record.decision} is not a decision of this version; skipped"
            )
            return decisions[0]
        self.used[key] = record
        return decision


def find_decision(known: dict[str, Any], decisions: Sequence[Any]) -> Any | None:
    """The decision with these fields; None where there is no such one."""
    return next((decision for decision in decisions if as_json(decision) == known), None)


def choose_one(key: str, chosen: Any, target: Target) -> Choose:
    """Takes ``chosen`` for the problem ``key``, and the templates' own decisions elsewhere."""

    def choose(template: str, problem: Any, decisions: Sequence[Any]) -> Any:
        return chosen if problem_key(template, problem, target) == key else decisions[0]

    return choose


def warn_on_stderr(message: str) -> None:
    """Print a warning."""
    print(f"warning: {message}", file=sys.stderr)
