"""A pytest plugin that puts fastkl.compat in the place of SciPy's functions while SciPy's own tests run.

It replaces the functions before the tests are imported, and writes the outcome of each test as JSON to the file that
OUTCOMES names. It uses private names of the installed SciPy.
"""

import json
import os
from pathlib import Path

from scipy import stats
from scipy._lib import _array_api
from scipy.spatial import distance

from fastkl import compat

_entropy = stats.entropy
_outcomes = {}


def entropy(*args, _no_deco=False, **keywords):
    """Fastkl's function, or SciPy's where its tests use the undecorated function as a reference."""
    return (_entropy if _no_deco else compat.scipy.entropy)(*args, **({"_no_deco": True} if _no_deco else {}), **keywords)


def pytest_configure():
    capabilities = getattr(_array_api, "xp_capabilities_table", {})  # of SciPy 1.17
    if _entropy in capabilities:
        capabilities[entropy] = capabilities[_entropy]
    stats.entropy = entropy
    ours = compat.scipy.jensenshannon
    distance.jensenshannon = ours
    object.__setattr__(distance._METRICS["jensenshannon"], "dist_func", ours)  # the "test_jensenshannon" of pdist


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        file, _, name = report.location
        _outcomes[f"{Path(file).name}::{name}"] = report.outcome


def pytest_sessionfinish():
    Path(os.environ["OUTCOMES"]).write_text(json.dumps(_outcomes), encoding="utf-8")
