"""Behaviour inside another program's process: limits of threads, floating-point modes, Python's threads, subinterpreters.

What could spoil this process for other tests happens in a process of its own. A build without OpenMP passes trivially where
threads are counted. Forks and signals have files of their own.
"""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import numpy as np
import pytest
from measures import MEASURES
from processes import NIGHT, counts_threads, posix, python

import fastkl
from fastkl import _build, _kernels

if TYPE_CHECKING:
    from pathlib import Path

# ---- limits of threads ----


def test_threadpoolctl_limits_the_thread_that_calls_it() -> None:
    pytest.importorskip("sklearn")  # which brings it
    import threadpoolctl

    before = _kernels.default_threads()
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert _kernels.default_threads() == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(_kernels.default_threads).result() == before
    assert _kernels.default_threads() == before


def test_one_thread_within_a_foreign_parallel_region() -> None:
    """A region of this very OpenMP: its entry for compiled code, called with a function of Python's. Settings stay."""
    openmp = ctypes.CDLL(_kernels.__file__)
    if not hasattr(openmp, "GOMP_parallel"):
        assert sys.platform != "linux" or not fastkl.build_info()["openmp"]
        return
    threads, values = [], []
    p, q = np.random.default_rng(5).random((2, 1000, 1000))

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def body(_: object) -> None:
        threads.append(_kernels.default_threads())
        values.append(fastkl.kl_divergence(p, q, normalize=True).tobytes())

    before = openmp.omp_get_max_threads(), openmp.omp_get_dynamic(), openmp.omp_get_max_active_levels()
    openmp.GOMP_parallel(body, None, 2, 0)
    assert set(threads) == {1}
    assert set(values) == {fastkl.kl_divergence(p, q, normalize=True, threads=3).tobytes()}
    assert before == (openmp.omp_get_max_threads(), openmp.omp_get_dynamic(), openmp.omp_get_max_active_levels())


@counts_threads
def test_no_thread_is_started_within_a_parallel_region() -> None:
    """No number of threads changes that, as for any code with OpenMP there. A thread of Python's counts them."""
    code = """
import ctypes, os, threading
import numpy as np
import fastkl
from fastkl import _kernels

openmp = ctypes.CDLL(_kernels.__file__)
x = np.random.default_rng(0).random((8, 300_000))
most, stop = 0, False

def compute(_=None):
    fastkl.cross_entropy(x, x, from_logits=True, threads=4)
    fastkl.cross_entropy(x.T, x.T, axis=0, normalize=True, threads=4)

def count():
    global most
    while not stop:
        most = max(most, len(os.listdir("/proc/self/task")))

body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compute)
if hasattr(openmp, "GOMP_parallel"):
    openmp.GOMP_parallel(body, None, 2, 0)
before = len(os.listdir("/proc/self/task"))
thread = threading.Thread(target=count)
thread.start()
for i in range(10):
    if hasattr(openmp, "GOMP_parallel"):
        openmp.GOMP_parallel(body, None, 2, 0)
stop = True
thread.join()
print(most - before)
"""
    assert python(code, OPENBLAS_NUM_THREADS="1") == "1\n"


def test_the_cpu_quota_limits_threads_of_the_next_call(tmp_path: Path) -> None:
    """A group that goes away limits nothing."""
    before, file = _kernels.default_threads(), tmp_path / "cpu.max"
    (tmp_path / "membership").write_text("0::/\n")
    file.write_text("max 100000\n")
    _build.limit_threads(tmp_path / "membership", tmp_path)
    try:
        for quota, most in ("100000", 1), ("30000", 1), ("max", before), ("149000", 1), (f"{before}00000", before):
            file.write_text(f"{quota} 100000\n")
            assert _kernels.default_threads() == most
        file.unlink()
        assert _kernels.default_threads() == before
    finally:
        _build.limit_threads()


def test_unreadable_control_groups_limit_nothing(tmp_path: Path) -> None:
    for group in b"caf\xe9", b"a" * 300, b"\xe2\x80\xa8":
        (tmp_path / "membership").write_bytes(b"0::/" + group + b"\n")
        assert _build.quota_files(tmp_path / "membership", tmp_path) == []


@counts_threads
def test_no_more_threads_are_requested_than_are_of_use() -> None:
    """Where the system refuses one, libgomp would end the process."""
    code = """
import os
import numpy as np
import fastkl
tasks = lambda: len(os.listdir("/proc/self/task"))
rows = np.broadcast_to(1.0, (400_000, 1000))
before = tasks()
fastkl.entropy(rows, normalize=True, threads=10**9)
most = max(16, 4 * len(os.sched_getaffinity(0)))
print(tasks() - before == (most - 1 if fastkl.build_info()["openmp"] else 0))
"""
    assert python(code, OPENBLAS_NUM_THREADS="1") == "True\n"


@counts_threads
def test_small_work_starts_no_thread() -> None:
    code = """
import os
import numpy as np
import fastkl
def started(rows):
    fastkl.entropy(np.ones((rows, 100)), normalize=True)
    return len(os.listdir("/proc/self/task"))
before = started(1)
print([started(rows) - before for rows in (1, 100, 2000, 20_000)], fastkl.build_info()["threads"] - 1)
"""
    counts, more = python(code, OPENBLAS_NUM_THREADS="1").rsplit(maxsplit=1)
    assert counts == f"[0, 0, 0, {more}]"


# ---- floating-point modes ----

# glibc's fenv_t: eight words on x86-64, of which the last is MXCSR; on arm64 two, of which the first is FPCR.
MODES = """
import ctypes, ctypes.util, hashlib, platform, signal, warnings

libm = ctypes.CDLL(ctypes.util.find_library("m"))
word, flush, flags = (7, 0x8040, 0x3F) if platform.machine() == "x86_64" else (0, 1 << 24, 0)

def mode():
    words = (ctypes.c_uint32 * 8)()
    libm.fegetenv(words)
    return words[word] & ~flags

if FLUSHED:
    words = (ctypes.c_uint32 * 8)()
    libm.fegetenv(words)
    words[word] |= flush
    libm.fesetenv(words)
before = mode()
import numpy as np
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that subnormal numbers are zero here, says NumPy
    np.finfo("d"), np.finfo("f"), np.finfo("e")
warnings.simplefilter("error")
import fastkl
from fastkl import _kernels
modes = [mode()]
rng, digest = np.random.default_rng(1), hashlib.sha256()
for tier in _kernels.tiers():
    _kernels.use_tier(tier)
    for unsigned, dtype, fraction in (np.uint64, "d", 52), (np.uint32, "f", 23):
        # Numbers from the least subnormal on, by their bits, for arithmetic here is the host's.
        for shape in (4000, 100), (2, 100_000):
            bits = rng.integers(1, 1 << (fraction + 1), (2, *shape)).astype(unsigned)
            bits[:, :, ::3] += unsigned(40 << fraction)
            p, q = bits.view(dtype)
            for name, threads in ((name, threads) for name in ("entropy", "cross_entropy", "kl_divergence", "js_distance")
                                  for threads in (1, 2, 3, 4)):
                operands = (p,) if name == "entropy" else (p, q)
                out = np.empty(shape[:1], ("d", "d", ">f4", "e")[threads - 1])
                digest.update(getattr(fastkl, name)(*operands, normalize=True, threads=threads, out=out).tobytes())
                modes.append(mode())
            digest.update(fastkl.compare(p, q, from_logits=True, threads=2).js.tobytes())
            modes.append(mode())
    for p, q, keywords in (
        ([0.5, 0.5], [1, 0], {"eps": 1e-310}),
        ([0.5, 0.5], [0.4, 0.6], {"base": 1 + 2.0**-52}),
        ([1e308, -1e308], [0, 0], {"from_logits": True, "temperature": 1e308}),
        ([0, 1e-310], [0, 0], {"from_logits": True, "temperature": 1e-310}),
    ):
        digest.update(fastkl.kl_divergence(p, q, **keywords).tobytes())
        modes.append(mode())
for wrong, keywords in ([0.5, 0.5, -5e-324], {}), (1e-310, {}), ([0.5, 0.5], {"base": 1e-310}):
    try:
        fastkl.entropy(wrong, **keywords)
    except ValueError as error:
        digest.update(str(error).encode())
try:
    fastkl.kl_divergence([0.5, 0.5], [0.5, 0.5], eps=-1e-310)
except ValueError as error:
    digest.update(str(error).encode())
try:
    fastkl.entropy([[0.5, 0.5], [np.nan, 1]])
except ValueError:
    modes.append(mode())
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    fastkl.entropy(np.broadcast_to(1.0, (100_000_000, 1000)), normalize=True, threads=2)
except KeyboardInterrupt:
    modes.append(mode())
print(len(modes), set(modes) == {before}, bool(before & flush), digest.hexdigest())
"""


@posix
@pytest.mark.skipif(sys.platform != "linux", reason="does not know this platform's <fenv.h>")
def test_a_host_that_flushes_subnormal_numbers_gets_the_same_bits() -> None:
    """In every thread: the flushing one starts them all. No mode is changed by the import, a call, an error or a signal."""
    plain, flushing = (python(f"FLUSHED = {flushed}\n{MODES}").split() for flushed in (False, True))
    assert plain[1:3] == ["True", "False"]
    assert flushing[1:3] == ["True", "True"]
    assert plain[0] == flushing[0]
    assert plain[3] == flushing[3]


# ---- Python's threads and interpreters ----


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_many_python_threads_share_their_inputs(threads: int | None) -> None:
    """Small calls and large ones, at the same time, of all measures, errors among them."""
    rng = np.random.default_rng(6)
    pairs = [rng.random((2, *shape)) for shape in ((1, 10), (50, 3), (700, 500), (2, 200_000))]
    bad = np.full((1000, 100), 0.01)
    bad[777, 7] = np.nan

    def values() -> list[bytes]:
        return [measure(p, q, normalize=True, threads=threads).tobytes() for measure in MEASURES for p, q in pairs] + [
            fastkl.compare(*pairs[2], from_logits=True, threads=threads).js.tobytes()
        ]

    expected = values()
    start = Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(20 if NIGHT else 3):
            assert values() == expected
            with pytest.raises(ValueError, match=r"^p\[777, 7\] = nan: "):
                fastkl.entropy(bad, threads=threads)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work) for _ in range(8)]:
            done.result()


def test_a_subinterpreter_is_refused_or_served() -> None:
    """NumPy and Cython know one interpreter a process. Whether they accept another or not, the first goes on."""
    code = """
import fastkl
import numpy as np
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
x, wide = np.ones((1000, 1000)), np.ones(5_000_000)
def compute():
    return [fastkl.entropy(y, normalize=True, threads=threads).tobytes() for y in (x, wide) for threads in (1, 3)]
expected = compute()
other = interpreters.create()
assert compute() == expected
code = '''
try:
    import fastkl
except ImportError:
    pass
else:
    assert fastkl.entropy([0.5, 0.5], base=2) == 1
'''
failed = (interpreters.exec if hasattr(interpreters, "exec") else interpreters.run_string)(other, code)
assert not failed, failed
assert compute() == expected
print(fastkl.entropy([0.5, 0.25, 0.25], base=2))
interpreters.destroy(other)
print(fastkl.entropy([0.5, 0.25, 0.25], base=2))
"""
    assert python(code) == "1.5\n1.5\n"
