"""Where this user's cache lies."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Folder of this user for what compilers made; it may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tvm_ipu"
