"""A function of many items, computed in copies of this process."""

from __future__ import annotations

import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from tvm_ipu.base.errors import RunError

Item = TypeVar("Item")
Result = TypeVar("Result")

_functions: list[Callable[[Any], Any]] = []
"""In a copy: what it computes."""


def map_in_copies(function: Callable[[Item], Result], items: Iterable[Item], copies: int) -> Iterator[Result]:
    """The function of each item, in order; as many items are held as there are copies, and one more.

    Copies are forked, so the function may refer to anything; what it changes is lost with its copy.

    Args:
        function: Its result is pickled. An exception of it is raised here.
        items: Read in this process, and pickled.
        copies: Processes; with 1 all is computed in this one.

    Raises:
        RunError: A copy ended before its result was there.
    """
    if copies <= 1:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(copies, get_context("fork"), _become, (function,)) as pool:
        try:
            for item in items:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about threads, of which a copy has only its own
                    pending.append(pool.submit(_call, item))
                if len(pending) > copies:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as err:
            raise RunError(
                f"one of {copies} processes ended before its sample was done",
                "with num_process=1 all is computed in this process, which shows why",
            ) from err
        finally:
            pool.shutdown(cancel_futures=True)


def _become(function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    _functions[:] = [function]


def _call(item: Any) -> Any:
    return _functions[0](item)
