"""Errors a user can cause. Each names the file, node or option, what was found and what is allowed.

The command line prints ``error: <message>`` and ``hint: <hint>`` and exits with code 1; a traceback
appears only with ``-v``. Any other exception that reaches the command line is a bug in tvm_ipu.
"""

from __future__ import annotations


class TvmIpuError(Exception):
    """Base of all errors that a user can cause.

    Args:
        message: What is wrong, in one sentence that names the file, node or option.
        hint: What to do about it; empty when the message already says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class OptionError(TvmIpuError):
    """A command-line option or API argument has a value that is not allowed."""


class ConfigError(TvmIpuError):
    """A configuration file breaks a rule; the message names its line and key."""


class ModelError(TvmIpuError):
    """A model file is missing, damaged, or asks for something that cannot be done."""


class UnsupportedOperatorError(ModelError):
    """A model needs operators that no loader or kernel provides; all of them are listed at once."""


class TargetError(TvmIpuError):
    """A target is unknown, its file is wrong, or the machine lacks what the target needs."""


class ToolError(TvmIpuError):
    """A compiler or linker is missing or failed."""


class ImageError(TvmIpuError):
    """An image is damaged, of a newer version, or made for another machine."""


class RunError(TvmIpuError):
    """A session was given inputs that do not match the image, or a run failed."""


class CalibrationError(TvmIpuError):
    """Samples cannot be calibrated on, or quantisation parameters cannot be used."""
