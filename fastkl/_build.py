"""The SIMD tier and the number of threads, which are chosen at import, and a description of this build."""

from __future__ import annotations

import inspect
import os
import re
import warnings
from pathlib import Path
from threading import Lock
from typing import Any, Final

from . import _kernels

MEMBERSHIP: Final = Path("/proc/self/cgroup")
MOUNT: Final = Path("/sys/fs/cgroup")
_MOST_BYTES: Final = 16_384  # of the list of control groups, which has a dozen lines at the most
# Two numbers of microseconds: the kernel's quotas are "max" or -1 where there is none, and its periods at most a second.
_QUOTA: Final = re.compile(rb"([1-9]\d{0,15})\s+([1-9]\d{0,6})\s*")

_warned: Final = Lock()  # It is taken by the first call that warns, and is not released.


def choose_tier() -> None:
    """Compute with the best tier, or with the one in FASTKL_SIMD; ImportError if this machine cannot run that one."""
    usable = _kernels.tiers()
    wanted = os.environ.get("FASTKL_SIMD") or usable[0]
    if wanted not in usable:
        raise ImportError(f"FASTKL_SIMD={wanted!r}: must be one of {', '.join(usable)} on this machine")
    _kernels.use_tier(wanted)


def limit_threads(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> None:
    """By default use no more threads than the CPU quota of the process pays for; OpenMP knows the other limits.

    The files with the quota are found now. They are read at every call that could use a second thread, as quotas change.
    """
    files = quota_files(membership, mount)
    _kernels.limit_threads((lambda: cpu_quota(files)) if files else None)
    if not _kernels.openmp():
        _kernels.call_before_threads(lambda threads: warn_of_one_thread(threads, files))


def default_workers() -> int:
    """The number of threads of their own that callers use by default: as many as OpenMP would, or would if it were here."""
    if _kernels.openmp():
        return _kernels.default_threads()
    return threads_of_openmp(quota_files(MEMBERSHIP, MOUNT))


def threads_of_openmp(files: list[tuple[Path, ...]]) -> int:
    """The number of threads that a call without a number would use in a build with OpenMP."""
    try:
        limits = [len(os.sched_getaffinity(0)), cpu_quota(files)]
    except (AttributeError, OSError):
        limits = [os.cpu_count(), cpu_quota(files)]
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if re.fullmatch("[1-9][0-9]{0,8}", named):
        limits.append(int(named))
    return max(1, round(min(filter(None, limits), default=1)))


def warn_of_one_thread(threads: int, files: list[tuple[Path, ...]]) -> None:
    """Warn, once, if a call would use more than one thread with OpenMP. `threads` is 0 if the call names no number."""
    if _warned.locked() or (threads or threads_of_openmp(files)) == 1 or not _warned.acquire(blocking=False):
        return
    frame, level = inspect.currentframe(), 1
    while frame and str(frame.f_globals.get("__name__")).partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(
        "this build of fastkl has no OpenMP, so it computes with one thread: to use more, build it with a compiler that "
        "has OpenMP (with FASTKL_REQUIRE_OPENMP=1 in the environment, the lack of OpenMP is an error of the build)",
        RuntimeWarning,
        stacklevel=level,
    )


def quota_files(membership: Path, mount: Path) -> list[tuple[Path, ...]]:
    """The files with the limits of this process's control group (v1 or v2) and its parents: quota and period, or both."""
    try:
        with membership.open("rb") as file:
            text = file.read(_MOST_BYTES)
    except OSError:
        return []
    found: dict[tuple[Path, ...], None] = {}
    # What follows the last end of a line may have been cut off.
    for line in text.split(b"\n")[:-1]:
        _, separator, rest = os.fsdecode(line).partition(":")
        controllers, separator, group = rest.partition(":")
        top, names = mount, ["cpu.max"]
        if controllers:
            top, names = mount / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        folder = top / group.lstrip("/")
        # A group outside of the mounted ones begins with "/..".
        if not separator or ".." in folder.parts or (controllers and "cpu" not in controllers.split(",")):
            continue
        for place in (folder, *folder.parents):
            files = tuple(place / name for name in names)
            # Unlike Path.exists, os.path.exists is False in a folder that may not be read.
            if place.is_relative_to(top) and all(map(os.path.exists, files)):
                found[files] = None
    return list(found)


def cpu_quota(files: list[tuple[Path, ...]]) -> float | None:
    """The smallest of the quotas in the files, in processors; None where there is no limit."""
    return min((quota for quota in map(_quota_in, files) if quota is not None), default=None)


def _quota_in(files: tuple[Path, ...]) -> float | None:
    try:
        found = _QUOTA.fullmatch(b" ".join(map(_read, files)))
    except OSError:  # The group has been deleted, or the file is of another kind.
        return None
    return int(found[1]) / int(found[2]) if found else None


def _read(file: Path) -> bytes:
    """The content of a small file. A file object would take twice the time."""
    opened = os.open(file, os.O_RDONLY)
    try:
        return os.read(opened, 100)
    finally:
        os.close(opened)


def build_info() -> dict[str, Any]:
    """Description of this build and of what it uses on this machine.

    The environment variable FASTKL_SIMD, which is read at import, forces a tier.

    Returns
    -------
    dict
        It has these keys. `simd` is the tier in use; `simd_available` are all tiers that this machine can run, the best
        first; `openmp` is whether the build has OpenMP; `threads` is the number of threads that `threads=None` would use
        now; `compiler` is the C compiler's name and version; `interface` is the version of the compiled interface.

    See Also
    --------
    get_include : The folder of the header for callers in C.

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
    """Path of the folder of `fastkl_c.h`, which a C compiler takes as an include path.

    The header has the measures for callers in C and C++.

    Returns
    -------
    str
        The path of the folder.

    See Also
    --------
    build_info : The version of the compiled interface is among its values.

    Examples
    --------
    >>> import os, fastkl
    >>> os.listdir(fastkl.get_include())
    ['fastkl_c.h', 'fastkl_measures.h']
    """
    return str(Path(__file__).parent / "include")
