"""Keep TensorFlow from talking: what it reports of itself is held back, its errors are not."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class Failures(logging.Handler):
    """The errors that tf2onnx logs of single nodes, which it collects before it gives up."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.records.append(record)


@contextmanager
def quiet() -> Iterator[Failures]:
    """Import TensorFlow if it is not, and hold back what is less than an error.

    Yields:
        What tf2onnx logs as errors meanwhile.
    """
    _import_quietly()
    failures = Failures()
    loggers = {name: logging.getLogger(name) for name in ("tensorflow", "tf2onnx")}
    before = {name: (one.level, one.propagate) for name, one in loggers.items()}
    for one in loggers.values():
        one.setLevel(logging.ERROR)
    loggers["tf2onnx"].propagate = False
    loggers["tf2onnx"].addHandler(failures)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield failures
    finally:
        loggers["tf2onnx"].removeHandler(failures)
        for name, one in loggers.items():
            one.level, one.propagate = before[name]


def _import_quietly() -> None:
    """Import TensorFlow, whose C++ part writes to stderr before it can be told not to."""
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                import tensorflow  # noqa: F401
            except ImportError:
                pass  # whoever needs it says so
            except BaseException:
                os.dup2(stderr, 2)
                held.seek(0)
                os.write(2, held.read())
                raise
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
