"""What this build is and what it will use: the choice of the SIMD tier and of the number of threads at import."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from . import _kernels

_TIER_VARIABLE: Final = "FASTKL_SIMD"


def choose_tier() -> None:
    """Compute with the best tier, or with the one that FASTKL_SIMD names; ImportError if that is not usable."""
    usable = _kernels.tiers()
    wanted = os.environ.get(_TIER_VARIABLE, usable[0])
    if wanted not in usable:
        raise ImportError(f"{_TIER_VARIABLE}={wanted!r}: must be one of {', '.join(usable)} on this machine")
    _kernels.use_tier(wanted)


def limit_threads() -> None:
    """By default use no more threads than the CPU quota of the process has time for; OpenMP knows the other limits."""
    quota = cpu_quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    if quota is not None:
        _kernels.limit_threads(max(1, round(quota)))


def cpu_quota(membership: Path, mount: Path) -> float | None:
    """Processors' worth of time that this process's control groups (v1 or v2) grant it; None where there is no limit."""
    quotas = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, group = line.split(":", 2)
        files: tuple[str, ...]
        if controllers == "":
            top, files = mount, ("cpu.max",)
        elif "cpu" in controllers.split(","):
            top, files = mount / "cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        folder = top / group.lstrip("/")
        for place in (folder, *folder.parents):
            quotas += _quota_at(place, files)
            if place == top:
                break
    return min(quotas, default=None)


def _quota_at(folder: Path, files: tuple[str, ...]) -> list[float]:
    try:
        quota, period = " ".join((folder / file).read_text() for file in files).split()
    except (OSError, ValueError):
        return []
    return [int(quota) / int(period)] if quota != "max" and int(quota) > 0 else []


def build_info() -> dict[str, Any]:
    """What this build is and will use.

    Returns
    -------
    dict
        `simd`, the tier in use; `simd_available`, all tiers usable on this machine, best first; `openmp`, whether the build
        has it; `threads`, how many threads `threads=None` would use now; `compiler`, the C compiler's name and version;
        `interface`, the version of the interface for compiled callers.

    Notes
    -----
    The environment variable FASTKL_SIMD, read at import, forces a tier.

    Examples
    --------
    >>> import fastkl
    >>> sorted(fastkl.build_info())
    ['compiler', 'interface', 'openmp', 'simd', 'simd_available', 'threads']
    """
    return {
        "simd": _kernels.tier_in_use(),
        "simd_available": _kernels.tiers(),
        "openmp": _kernels.openmp(),
        "threads": _kernels.default_threads(),
        "compiler": _kernels.compiler(),
        "interface": _kernels.INTERFACE_VERSION,
    }


def get_include() -> str:
    """The folder of `fastkl_c.h`, for the include path of a C compiler.

    Returns
    -------
    str
        Its path. The header has the measures for callers in C and C++.

    Examples
    --------
    >>> import os, fastkl
    >>> os.listdir(fastkl.get_include())
    ['fastkl_c.h']
    """
    return str(Path(__file__).parent / "include")
