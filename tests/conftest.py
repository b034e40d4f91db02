"""What every test shares: the `tier` fixture, `--slow`, processes for the tests, the hypothesis profiles."""

import os

import pytest
from hypothesis import HealthCheck, settings

from fastkl import _kernels

# No deadline: shared machines stall now and then. A function-scoped fixture is a trap for hypothesis only where an
# example can spoil it for the next; `tier` stays the same, and of a wider scope it would outlast the tests that ask for it.
without = [HealthCheck.function_scoped_fixture]
settings.register_profile("quick", deadline=None, max_examples=25, suppress_health_check=without)
settings.register_profile("slow", settings.get_profile("quick"), max_examples=100)
settings.register_profile("night", settings.get_profile("quick"), max_examples=20_000)


def pytest_addoption(parser):
    explanation = "run also the tests marked slow, and more examples of each property"
    parser.addoption("--slow", action="store_true", help=explanation)


# First, because pytest-xdist's own hook reads the number of processes.
@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Let pytest-xdist, where it is installed, share a run of all tests among the processors."""
    option = config.option
    debugs = option.usepdb or option.trace
    everything = not option.file_or_dir and not debugs and not hasattr(config, "workerinput")
    if everything and config.pluginmanager.hasplugin("xdist") and option.numprocesses is None:
        option.numprocesses = "logical"


def pytest_configure(config):
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "slow" if config.option.slow else "quick"))
    if not _kernels.openmp():
        config.addinivalue_line("filterwarnings", "ignore:this build of fastkl has no OpenMP:RuntimeWarning")


def pytest_collection_modifyitems(config, items):
    if not config.option.slow:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


@pytest.fixture(params=_kernels.tiers())
def tier(request):
    """Compute with each SIMD tier that this machine can run."""
    before = _kernels.tier_in_use()
    _kernels.use_tier(request.param)
    yield request.param
    _kernels.use_tier(before)
