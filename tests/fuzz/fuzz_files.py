"""Feeds damaged files to every reader of a file: ``python -m tests.fuzz.fuzz_files --seconds 60``.

File number ``n`` of a reader is a function of the seed, the reader's name and ``n``, and of nothing that was
found before: a run with the same seed reads the same files, and a faster machine reads more of them, up to
``--files``. What is neither a success nor an error of ``base.errors`` is a finding: another exception, a
crash, more than ten seconds or two gigabytes, a file left behind or written elsewhere, a program started, or
code run that the file names. Findings are kept below ``build/fuzz-files``, each with its files, and
``--replay`` reads them again.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import canary
from tests.fuzz.models import MODELS
from tests.fuzz.mutators import mutate
from tests.fuzz.others import OTHERS
from tests.fuzz.reader import Files, InternalError, Reader

READERS = MODELS | OTHERS

SECONDS, WALL = 10, 180
"""Processor time of one file, and time on the clock; the machine may have other work."""

MEMORY = 2**31
"""Bytes that reading one file may take."""

GROWTH = 2**29
"""Bytes of growth, over many files, after which a worker makes place for a new one."""

LOADING = 300
"""Seconds that a worker may take until it has its examples."""

WORK = Path("build") / "fuzz-files"
LOG, CASE, TEMPORARY = "log", "case", "tmp"
_PROGRAMS = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"),
    *("subprocess.Popen", "socket.connect"),
)


class Watch:
    """Notes programs that are started and files that are opened for writing outside of a folder."""

    def __init__(self, folder: Path, programs: bool) -> None:
        self.seen: list[str] = []
        self._roots = (str(folder), str(Path.home() / ".cache"), "/dev/")
        self._programs = () if programs else _PROGRAMS

    def notice(self, event: str, args: tuple[Any, ...]) -> None:
        """One of Python's audit events."""
        if event in self._programs:
            self.seen.append(f"{event}: {args}")
        elif event == "open" and isinstance(args[0], str | bytes):
            writes = bool(args[2] & (os.O_WRONLY | os.O_RDWR)) if isinstance(args[2], int) else False
            path = os.path.abspath(os.fsdecode(args[0]))  # noqa: PTH100 - pathlib itself opens files
            if writes and not path.startswith(self._roots):
                self.seen.append(f"open for writing: {path}")


def work(name: str, seed: str, start: int, folder: Path, connection: Connection[Any, Any]) -> None:
    """Read files from number ``start`` on, and tell of each: its number, then what came of it."""
    from tvm_ipu.base.errors import TvmIpuError

    prepare(folder)
    reader = READERS[name]
    examples = list(reader.seeds(Path(tempfile.mkdtemp(dir=folder))))
    words = reader.words()
    with suppress(TvmIpuError if reader.refuses else ()):
        if read_files(reader, examples[0], folder / CASE):
            raise RuntimeError(f"{name}: a whole file was refused")
    watch = Watch(folder, reader.programs)
    sys.addaudithook(watch.notice)
    clear(folder / TEMPORARY)
    limit = _bytes("data") + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    largest = _bytes("resident") + GROWTH
    for number in itertools.count(start):
        connection.send((number, None))
        if number > start and number % 64 == 0 and _bytes("resident") > largest:
            return
        random = Random(f"{seed} {name} {number}")
        files = mutate(random.choice(examples), random, words)
        connection.send((number, check_files(reader, files, folder, watch)))


def prepare(folder: Path) -> None:
    """Make this process a worker: what it prints goes to a log, its temporary files below ``folder``."""
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable(log)
    faulthandler.register(signal.SIGPROF, log, chain=True)
    warnings.simplefilter("ignore")
    sys.dont_write_bytecode = True
    for part in (CASE, TEMPORARY):
        (folder / part).mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / TEMPORARY)
    os.chdir(folder / CASE)


REFUSED = "refused"


def check_files(reader: Reader, files: Files, folder: Path, watch: Watch) -> str:
    """What is wrong with how these files are read; ``REFUSED``, or nothing, where nothing is."""
    from tvm_ipu.base.errors import TvmIpuError

    os.truncate(folder / LOG, 0)
    watch.seen.clear()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        outcome = REFUSED if read_files(reader, files, folder / CASE) else ""
    except TvmIpuError:
        outcome = REFUSED
    except InternalError as err:
        outcome = str(err)
    except Exception:
        outcome = traceback.format_exc()
    signal.setitimer(signal.ITIMER_PROF, 0)
    left = {str(p.relative_to(folder / CASE)) for p in (folder / CASE).rglob("*") if p.is_file()} - set(files)
    left -= {"out.onnx", "out.img", "out.sim"} if not outcome else set()
    left |= {p.name for p in (folder / TEMPORARY).iterdir()}
    clear(folder / TEMPORARY)
    notes = [*(f"left behind: {name}" for name in sorted(left)), *watch.seen, *canary.sung]
    canary.sung.clear()
    return "\n".join(notes) or outcome


def read_files(reader: Reader, files: Files, case: Path) -> object:
    """Write the files into an empty folder and read them."""
    clear(case)
    for name, content in files.items():
        (case / name).parent.mkdir(parents=True, exist_ok=True)
        (case / name).write_bytes(content)
    return reader.read(case)


def clear(folder: Path) -> None:
    """Remove what is in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _bytes(what: str) -> int:
    """Memory of this process: ``data`` counts what is reserved for writing, ``resident`` what is in use."""
    numbers = Path("/proc/self/statm").read_text().split()
    return int(numbers[{"resident": 1, "data": 5}[what]]) * resource.getpagesize()


class Run:
    """Damaged files for one reader: workers follow one another, as they crash or have grown."""

    def __init__(self, name: str, seed: str, seconds: float, start: int = 0, files: int = 0) -> None:
        self.name, self.seed, self.left, self.start = name, seed, seconds, start
        self.number = start
        self.end = start + files if files else sys.maxsize
        self.refused = 0
        self.findings: dict[str, int] = {}

    def __str__(self) -> str:
        found = "".join(f"\n    {count} x {key}" for key, count in self.findings.items())
        return f"{self.name}: {self.number - self.start} files, {self.refused} refused{found}"

    def run(self) -> None:
        """Go on until the time is over, or the last file read."""
        while self.left > 0 and self.number < self.end:
            with tempfile.TemporaryDirectory(prefix="fuzz-files-") as folder:
                self._one_worker(Path(folder))

    def _one_worker(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        worker = context.Process(target=work, args=(self.name, self.seed, self.number, folder, theirs))
        worker.start()
        theirs.close()
        begun = None
        try:
            if not ours.poll(LOADING):
                raise RuntimeError(f"{self.name}: no example was read within {LOADING} s")
            ours.recv()
            begun = time.monotonic()
            self._follow(ours, folder, begun + self.left)
        except EOFError:
            worker.join()
            log = (folder / LOG).read_text(errors="replace")
            if begun is None:
                raise RuntimeError(f"{self.name}: the examples cannot be read\n{log}") from None
            if worker.exitcode:
                self._keep(f"{_ending(worker.exitcode)}\n{log}", folder / CASE)
                self.number += 1
        finally:
            worker.kill()
            worker.join()
            ours.close()
        self.left -= time.monotonic() - begun

    def _follow(self, connection: Connection[Any, Any], folder: Path, end: float) -> None:
        while time.monotonic() < end:
            if not connection.poll(WALL):
                self._keep(f"no answer within {WALL} s", folder / CASE)
                self.number += 1
                return
            self.number, outcome = connection.recv()
            if self.number == self.end:
                return
            self.refused += outcome == REFUSED
            if outcome not in (None, "", REFUSED):
                self._keep(outcome, folder / CASE)

    def _keep(self, fault: str, case: Path) -> None:
        """Keep the first files of each fault."""
        key = summary(fault)
        self.findings[key] = self.findings.get(key, 0) + 1
        if self.findings[key] > 1:
            return
        print(f"{self.name}, file {self.number}: {key}", flush=True)
        folder = WORK / self.name / re.sub(r"[^\w.]+", "-", key)[:100]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(case, folder / "files")
        again = f"python -m tests.fuzz.fuzz_files --replay {folder}"
        (folder / "finding.txt").write_text(f"seed {self.seed}, file {self.number}\n{again}\n\n{fault}\n")


def _ending(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"hang: more than {SECONDS} s of processor time"
    return f"crash: {signal.Signals(-code).name}" if code < 0 else f"crash: exit code {code}"


def summary(fault: str) -> str:
    """One line that is the same for faults of the same kind: what, and where in the project."""
    places = re.findall(r'File "(?:[^"]*/)?((?:tvm_ipu|tests)/[^"]*)", line \d+,? in (\w+)', fault)
    places = [place for place in places if place[0].startswith("tvm_ipu")] or places
    lines = fault.strip().splitlines()
    if fault.startswith(("crash", "hang", "no answer")):  # the innermost function is the first
        return f"{lines[0]} at {' '.join(places[0])}" if places else lines[0]
    if not places:
        return lines[0]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Overflow|Warning)\b", line)]
    return f"{(errors or lines)[-1].partition(':')[0]} at {' '.join(places[-1])}"


def replay(folder: Path) -> int:
    """Read the files of a finding in this process."""
    reader = READERS[folder.resolve().parent.name]
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder / "files", copy, dirs_exist_ok=True)
        os.chdir(copy)
        reader.read(Path(copy))
    return 0


def main() -> int:
    """Run the readers that are asked for; 1 where there is a finding."""
    parser = argparse.ArgumentParser(prog="fuzz-files", description="Feeds damaged files to every reader.")
    parser.add_argument("--seconds", type=float, default=60, help="time, shared by the readers (default: 60)")
    parser.add_argument("--seed", default="0", help="another seed gives other files (default: 0)")
    parser.add_argument("--files", type=int, default=0, metavar="N", help="at most so many files a reader")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="number of the first file")
    parser.add_argument("--only", default="", metavar="PATTERN", help="readers whose names match")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="readers at a time"
    )
    parser.add_argument("--list", action="store_true", help="list the readers")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="read the files of a finding again")
    args = parser.parse_args()
    if args.replay:
        return replay(args.replay)
    names = [name for name in READERS if re.search(args.only, name)]
    if args.list:
        print("\n".join(names))
        return 0
    os.environ["PYTHONHASHSEED"] = "0"
    jobs = min(args.jobs, len(names))
    seconds = args.seconds * jobs / len(names)
    runs = [Run(name, args.seed, seconds, args.start, args.files) for name in names]
    with ThreadPoolExecutor(jobs) as pool:
        for one, _ in zip(runs, pool.map(Run.run, runs), strict=True):
            print(one, flush=True)
    files, findings = sum(one.number - one.start for one in runs), sum(len(one.findings) for one in runs)
    print(
        f"{len(runs)} readers, {files} files, {findings} findings" + (f", kept in {WORK}" if findings else "")
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
