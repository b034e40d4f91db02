"""What every test shares: the `tier` fixture and the hypothesis profiles. Knows nothing of the measures."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from fastkl import _kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

# No deadline: shared machines stall now and then. A function-scoped fixture is a trap for hypothesis only where an
# example can spoil it for the next; `tier` stays the same, and of a wider scope it would outlast the tests that ask for it.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.register_profile("night", settings.get_profile("default"), max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(params=_kernels.tiers())
def tier(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compute with each SIMD tier that this machine can run."""
    before = _kernels.tier_in_use()
    _kernels.use_tier(request.param)
    yield request.param
    _kernels.use_tier(before)
