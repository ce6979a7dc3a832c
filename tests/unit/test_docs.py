"""What the documentation says about commands and targets is what they are."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_ipu.cli.main import build_parser, expand, normalise

ROOT = Path(__file__).resolve().parents[2]


def test_generated_pages_are_fresh():
    command = [sys.executable, "scripts/generate_docs.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_links_between_pages_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def commands():
    """Every ``tvm-ipu`` command line in the pages' blocks of code, with lines that go on joined."""
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]):
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("tvm-ipu ") and "..." not in line:
                    yield page.name, line.split("  #")[0]


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_in_the_pages_exist(page, line):
    words = normalise(shlex.split(line)[1:])
    build_parser(words).parse_args(expand(words))
