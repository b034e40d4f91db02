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
    wanted = os.environ.get(_TIER_VARIABLE) or usable[0]
    if wanted not in usable:
        raise ImportError(f"{_TIER_VARIABLE}={wanted!r}: must be one of {', '.join(usable)} on this machine")
    _kernels.use_tier(wanted)


def limit_threads(membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> None:
    """By default use no more threads than the CPU quota of the process has time for; OpenMP knows the other limits.

    Which files say so is found out now, what they say is read at every call that is worth a second thread.
    """
    files = quota_files(membership, mount)
    _kernels.limit_threads((lambda: cpu_quota(files)) if files else None)


def quota_files(membership: Path, mount: Path) -> list[tuple[Path, ...]]:
    """The files that limit this process's control group (v1 or v2) and those above it: quota and period, or both in one."""
    found = []
    try:
        lines = [os.fsdecode(line) for line in membership.read_bytes().splitlines()]
    except OSError:
        return []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        names: tuple[str, ...]
        if controllers == "":
            top, names = mount, ("cpu.max",)
        elif "cpu" in controllers.split(","):
            top, names = mount / "cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        folder = top / group.lstrip("/")
        for place in (folder, *folder.parents):
            files = tuple(place / name for name in names)
            if all(map(os.path.exists, files)):  # which, unlike Path's, says no where one may not look
                found.append(files)
            if place == top:
                break
    return found


def cpu_quota(files: list[tuple[Path, ...]]) -> float | None:
    """Processors' worth of time that is granted, the least that the files say; None where there is no limit."""
    return min((quota for quota in map(_quota_in, files) if quota is not None), default=None)


def _quota_in(files: tuple[Path, ...]) -> float | None:
    try:
        quota, period = b" ".join(map(_read, files)).split()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # "max" is no number; groups can be taken away
        return None


def _read(file: Path) -> bytes:
    """All of a file that is small; without a file object, which would take as long again."""
    opened = os.open(file, os.O_RDONLY)
    try:
        return os.read(opened, 100)
    finally:
        os.close(opened)


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
