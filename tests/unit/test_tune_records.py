"""Tuning records: what is kept, found again, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import tvm_ipu
from tests.unit.test_templates_model import PROBLEMS
from tests.unit.tune_kit import PROBLEM, TARGET, record
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.target import load_target
from tvm_ipu.kernels.templates import gemm
from tvm_ipu.kernels.window import Window
from tvm_ipu.tune.records import Records, as_json, find_decision, read_records, write_records


@pytest.mark.parametrize(("template", "problem"), PROBLEMS, ids=lambda p: getattr(p, "__name__", ""))
def test_every_decision_survives_json(template, problem):
    decisions = template.space(problem, TARGET)
    for decision in decisions:
        assert find_decision(json.loads(json.dumps(as_json(decision))), decisions) == decision


def test_records_are_looked_up_by_template_problem_target_and_cores(tmp_path):
    decisions = gemm.space(PROBLEM, TARGET)
    write_records(tmp_path / "r.jsonl", [record(decisions[3]), record(decisions[5])])
    warnings = []
    (first, last) = read_records(tmp_path / "r.jsonl", warnings.append)
    records = Records([first, last], TARGET, warnings.append)
    assert records.choose("gemm", PROBLEM, decisions) == decisions[5]
    assert records.choose("gemm", replace(PROBLEM, pitch=4096), decisions) == decisions[5]
    assert "pitch" not in last.problem  # a field at its default is not written
    assert len(records.used) == 1
    others = [
        ("matmul", PROBLEM, TARGET),
        ("gemm", replace(PROBLEM, rows=50), TARGET),
        ("gemm", PROBLEM, replace(TARGET, cores=3)),
        ("gemm", PROBLEM, replace(TARGET, name="another")),
    ]
    for template, problem, target in others:
        assert Records([last], target, warnings.append).choose(template, problem, decisions) == decisions[0]
    assert warnings == []


def test_records_that_no_longer_fit_are_skipped_with_a_warning(tmp_path):
    decisions = gemm.space(PROBLEM, TARGET)
    path = tmp_path / "r.jsonl"
    write_records(
        path, [record(replace(decisions[0], rows=77)), record(decisions[1], replace(PROBLEM, rows=1))]
    )
    lines = path.read_text().splitlines()
    other_fields = json.loads(lines[0])
    del other_fields["gain"]
    wrong = ["no json", json.dumps(other_fields), lines[0].replace('"format": 1', '"format": 2'), "[]"]
    path.write_text("\n".join([*lines, *wrong]))
    warnings = []
    found = read_records(path, warnings.append)
    assert len(found) == 2
    assert [w.split(": ")[0] for w in warnings] == [f"{path}, line {n}" for n in (3, 4, 5, 6)]
    warnings.clear()
    records = Records(found, TARGET, warnings.append)
    for _ in range(2):
        assert records.choose("gemm", PROBLEM, decisions) == decisions[0]
    (warning,) = warnings
    assert "no longer fits" in warning
    assert records.used == {}


def test_a_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(OptionError, match="--tuning-records: cannot read"):
        read_records(tmp_path / "none.jsonl", print)


def test_shipped_records_fit_targets_and_decisions_of_ours():
    for file in (Path(__file__).parents[2] / "tuning_logs").glob("*/*.jsonl"):
        found = read_records(file, pytest.fail)
        assert found
        assert {record.target for record in found} == {file.parent.name} <= set(tvm_ipu.target_names())
        for one in found:
            caches = {"l1_bytes": 48 << 10, "l2_bytes": 1 << 20}  # of Zen 5, which measured
            target = replace(load_target(one.target), cores=one.cores, **caches)
            template = import_module(f"tvm_ipu.kernels.templates.{one.template}")
            fields = dict(one.problem)
            if "window" in fields:
                geometry = {k: tuple(v) if isinstance(v, list) else v for k, v in fields["window"].items()}
                fields["window"] = Window(**geometry)
            problem = template.Problem(**fields)
            decisions = template.space(problem, target)
            chosen = Records([one], target, pytest.fail).choose(one.template, problem, decisions)
            assert as_json(chosen) == one.decision
