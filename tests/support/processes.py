"""Processes of their own for code and for the programs of this folder, and marks for platforms."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import fastkl

INSTALLED = Path(fastkl.__file__).parents[1]
TESTS = Path(__file__).parents[1]
SLOW, NIGHT = settings.default.max_examples >= 100, settings.default.max_examples > 100

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such forks, signals, modes or links")
counts_threads = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")


def program(name):
    """The command that starts a program of this folder, and an environment in which it has the fastkl that is tested."""
    path = os.pathsep.join([str(INSTALLED), str(TESTS), os.environ.get("PYTHONPATH", "")])
    return [sys.executable, "-P", "-m", f"support.{name}"], {**os.environ, "PYTHONPATH": path}


IMPORTS = """
import ctypes, os, signal, sys, threading, traceback
import numpy as np
import fastkl
from fastkl import _kernels
"""


def python(code, folder=INSTALLED, before="", **environment):
    """The output of the code after the imports, in a process with two threads by default, with the fastkl of the folder."""
    whole = f"{before}\n{IMPORTS}\n{code}"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", whole]  # Forks beside threads are deprecated.
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **environment}
    for name in "KMP_INIT_AT_FORK", "OMP_MAX_ACTIVE_LEVELS", "OMP_NESTED":  # The first is set by scikit-learn.
        environment.pop(name, None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
