"""What the tests of process behaviour share: a process of its own for a piece of code, and marks for platforms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import fastkl

INSTALLED = Path(fastkl.__file__).parents[1]
NIGHT = settings.default.max_examples > 100

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such forks, timers or modes")
counts_threads = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")


def python(code: str, **environment: str) -> str:
    """The output of the code, in a process with two threads by default."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]  # Forks beside threads are deprecated.
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **environment}
    for name in "KMP_INIT_AT_FORK", "OMP_MAX_ACTIVE_LEVELS", "OMP_NESTED":  # The first is set by scikit-learn.
        environment.pop(name, None)
    done = subprocess.run(command, cwd=INSTALLED, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
