"""Manners inside someone else's process: forks, signals, limits of threads, modes of arithmetic, threads, subinterpreters.

What could hang, or spoil this process for other tests, happens in a process of its own. With HYPOTHESIS_PROFILE=night there
are 200 forks of each kind, and 50 interruptions. A build without OpenMP passes trivially where threads are counted.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from measures import MEASURES

import fastkl
from fastkl import _build, _kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INSTALLED = Path(fastkl.__file__).parents[1]
NIGHT = settings.default.max_examples > 100
FORKS = 200 if NIGHT else 10
INTERRUPTIONS = 50 if NIGHT else 1

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such forks, timers or modes")
counts_threads = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")


def python(code: str, **environment: str) -> str:
    """What the code prints, in a process with two threads by default."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]  # forks beside threads are deprecated
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **environment}
    for name in "KMP_INIT_AT_FORK", "OMP_MAX_ACTIVE_LEVELS", "OMP_NESTED":  # the first is scikit-learn's, if it is there
        environment.pop(name, None)
    done = subprocess.run(command, cwd=INSTALLED, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- forks ----

# A child that hangs is killed by its alarm, which needs nobody to be awake. The work is enough for three threads.
FORK = """
import os, signal, sys, threading, traceback
import numpy as np
import fastkl

p, q = np.random.default_rng(0).random((2, 1000, 1000))

def compute(threads=2):
    return fastkl.kl_divergence(p, q, normalize=True, threads=threads).tobytes()

def child(check):
    pid = os.fork()
    if not pid:
        signal.alarm(10)
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def check():
    new = []
    thread = threading.Thread(target=lambda: new.append(compute()))
    thread.start()
    thread.join()
    return {compute(), compute(3), compute(None), *new} == {expected} and not grandchild

expected, grandchild = compute(), 0
"""


@posix
@pytest.mark.parametrize("beside", ["nothing", "a busy thread", "torch", "sklearn"])
def test_a_forked_child_computes(beside: str) -> None:
    before = {
        "nothing": "def other(): pass",
        "a busy thread": """
stop = False
def other():
    pass
def work():
    while not stop:
        compute()
thread = threading.Thread(target=work)
thread.start()
""",
        "torch": """
import torch
x = torch.rand(1_000_000)
torch.set_num_threads(2)
other = lambda: x.exp().sum()
""",
        "sklearn": """
from sklearn.cluster import KMeans
other = KMeans(3, n_init=1, random_state=0).fit
other = lambda fit=other: fit(p[:, :4])
""",
    }[beside]
    if beside in ("torch", "sklearn"):
        pytest.importorskip(beside)
    forks = f"""
for i in range({FORKS}):
    other()
    compute()
    codes.append(child(check))
codes.append(child(lambda: check() and not child(check)))
stop = True
print(set(codes))
"""
    assert python(FORK + before + "\ncodes = []" + forks) == "{0}\n"


@posix
def test_a_pool_of_forked_processes_uses_two_threads_each() -> None:
    """Each is asked while the threads are there: a thread of Python's looks on."""
    code = """
import multiprocessing
def work(i):
    return compute() == expected
with multiprocessing.get_context("fork").Pool(4) as pool:
    print(set(pool.map_async(work, range(40), chunksize=1).get(60)))
"""
    assert python(FORK + code) == "{True}\n"


@counts_threads
def test_a_forked_child_has_threads() -> None:
    """Under libgomp the caller waits while a new thread, and another for it, compute. One more counts them."""
    code = """
def check():
    most, stop = 0, False
    def count():
        nonlocal most
        while not stop:
            most = max(most, len(os.listdir("/proc/self/task")))
    thread = threading.Thread(target=count)
    thread.start()
    built = fastkl.build_info()
    while most < 2 + built["openmp"] * (2 - built["compiler"].startswith("clang")):
        compute()
    stop = True
    thread.join()
    return True
print(child(check))
"""
    assert python(FORK + code) == "0\n"


# ---- signals ----

ENDLESS = 20_000_000  # rows, which are one row, again and again: a call of a minute, whose result is no more than reserved
HALVES = np.zeros(ENDLESS, "f2")
PAGES = Path("/proc/self/pagemap")


def endless(zeros: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Calls that take a second or more, one for every way through the kernels, and every loop that takes most of a call.

    But for the first six, no thread has more than one piece of work that is long: what is answered after it comes too late.
    """
    p, q = np.random.default_rng(1).random((2, 4000))
    many = np.broadcast_to(p, (ENDLESS, 4000)), np.broadcast_to(q, (ENDLESS, 4000))
    labels = np.broadcast_to(0, (ENDLESS,))
    keywords = {"normalize": True, "threads": 2}
    logits = {"from_logits": True, "threads": 2}
    cold = {"temperature": 1e-300, **logits}  # which no lanes can do with

    def row(value: float, n: int) -> Any:
        return np.broadcast_to(value, (1, n))

    wide = zeros[np.newaxis]
    columns = zeros.reshape(-1, 250)  # blocks for both threads
    uneven = np.broadcast_to([[np.nan], [1.0]], (2, 10**9))  # the first thread is soon done with the first row, and waits
    few, more = 10**7, 3 * 10**7  # entries, to be looked at one by one after a first look that ends before the signal
    tiny = row(1e-310, few), row(3e-310, few)
    few_columns = [np.broadcast_to(np.full(120, value), (8192, 120)) for value in (1e-310, 3e-310)]  # one block
    cold_columns = [np.broadcast_to(np.full(120, value), (8192, 120)) for value in (1e-300, 2e-300)]
    return {
        "rows": lambda: fastkl.kl_divergence(*many, **keywords),
        "rows, one thread": lambda: fastkl.entropy(many[0], normalize=True, threads=1),
        "into an array of halves": lambda: fastkl.kl_divergence(*many, out=HALVES, **keywords),
        "logits": lambda: fastkl.kl_divergence(*many, **logits),
        "labels": lambda: fastkl.cross_entropy(labels, many[1], **logits),
        "a comparison": lambda: fastkl.compare(*(x[: ENDLESS // 10] for x in many), **logits),
        "a wide row": lambda: fastkl.js_divergence(wide, wide, **keywords),
        "a wide row, one thread": lambda: fastkl.js_divergence(wide, wide, normalize=True, threads=1),
        "columns": lambda: fastkl.js_divergence(columns, columns, axis=0, **keywords),
        "columns, one thread": lambda: fastkl.js_divergence(columns, columns, axis=0, normalize=True, threads=1),
        "another thread's row": lambda: fastkl.kl_divergence(uneven, uneven, invalid="nan", **logits),
        "columns entry by entry": lambda: fastkl.js_divergence(*few_columns, axis=0, normalize=True, threads=1),
        "columns of tiny numbers": lambda: fastkl.compare(*few_columns, axis=0, normalize=True, threads=1),
        "a label in a wide row": lambda: fastkl.cross_entropy(0, zeros, **keywords),
        "a comparison of wide rows": lambda: fastkl.compare(wide, wide, **keywords),
        "wide logits": lambda: fastkl.kl_divergence(wide, row(1.0, zeros.size), **logits),
        "entropy of wide logits": lambda: fastkl.entropy(wide, **logits),
        "a label in wide logits": lambda: fastkl.cross_entropy(0, zeros, **logits),
        "equal logits": lambda: fastkl.js_divergence(wide[:, ::2], wide[:, ::2], **logits),
        "logits far from 0": lambda: fastkl.kl_divergence(wide, row(1e200, zeros.size), **logits),
        "logits that are none": lambda: fastkl.kl_divergence(wide, row(np.inf, zeros.size), **logits),
        "columns of labels": lambda: fastkl.compare(*few_columns, np.zeros(120, int), axis=0, normalize=True, threads=1),
        "columns of cold logits": lambda: fastkl.compare(*cold_columns, axis=0, **cold),
        "tiny numbers, KL": lambda: fastkl.kl_divergence(*tiny, **keywords),
        "tiny numbers, JS": lambda: fastkl.js_divergence(*tiny, **keywords),
        "tiny numbers, entropy": lambda: fastkl.entropy(row(1e-310, more), **keywords),
        "cold logits, KL": lambda: fastkl.kl_divergence(row(1e-300, few), row(2e-300, few), **cold),
        "cold logits, JS": lambda: fastkl.js_divergence(row(1e-300, few), row(2e-300, few), **cold),
        "cold logits, entropy": lambda: fastkl.entropy(row(1e-300, more), **cold),
        "a label in cold logits": lambda: fastkl.cross_entropy(0, row(0.0, more)[0], label_smoothing=0.1, **cold),
    }


def reached(array: np.ndarray) -> bool:
    """Has the end of an array of zeros been read? Linux has no page for it until it is, and tells."""
    with PAGES.open("rb") as pages:
        pages.seek((array.ctypes.data + array.nbytes - 1) // mmap.PAGESIZE * 8)
        return bool(int.from_bytes(pages.read(8), sys.byteorder) >> 63)


class Interrupted(Exception):  # noqa: N818
    """What a signal's handler raises; pytest keeps KeyboardInterrupt to itself."""


@pytest.fixture
def interrupting() -> Iterator[None]:
    """SIGALRM raises, as SIGINT does."""

    def handle(number: int, frame: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@posix
@pytest.mark.usefixtures("interrupting")
@pytest.mark.parametrize("name", endless(np.zeros(0)))
def test_a_signal_is_answered_within_a_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the piece of work that it finds is done: the row's value is not written, its end not even read.

    And the next call is as if nothing had been.
    """
    p, q = np.random.default_rng(2).random((2, 2000, 300))
    expected = [measure(p, q, normalize=True, threads=2).tobytes() for measure in MEASURES]
    delay = 0.2 if "tiny" in name or "cold" in name else 0.1  # when first looks have ended, or before
    memory = mmap.mmap(-1, 4 * 10**9, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    zeros = np.frombuffer(memory, "f2")
    call = endless(zeros)[name]
    evaluate = _kernels.evaluate
    result = np.full(1, -1.0)

    def spy(*arguments: Any) -> Any:
        nonlocal result
        result = arguments[6]
        result.flat[0] = result.flat[_last_row(result)] = -1
        return evaluate(*arguments)

    for _ in range(INTERRUPTIONS):
        with monkeypatch.context() as patch:
            patch.setattr("fastkl._rows._evaluate", spy)
            fastkl.entropy(p, normalize=True, threads=2)  # the other thread is awake now, and takes its part
            result = np.full(1, -1.0)
            with pytest.raises(Interrupted):  # noqa: PT012 - the timer must not ring before
                signal.setitimer(signal.ITIMER_REAL, delay)
                call()
        unfinished = -1 in (result.flat[0], result.flat[_last_row(result)])
        assert unfinished or (name == "into an array of halves" and not HALVES[-1])
        assert [measure(p, q, normalize=True, threads=2).tobytes() for measure in MEASURES] == expected
    if PAGES.exists():  # not everywhere; what was written tells the most
        assert not reached(zeros)
        assert zeros[-1] == 0  # that is read now
        assert reached(zeros)


def _last_row(result: np.ndarray) -> int:
    """Where its value is, in the first field of a comparison."""
    return result.shape[-1] - 1 if result.ndim else 0


@posix
def test_a_signal_is_answered_in_a_forked_child() -> None:
    code = """
def check():
    signal.signal(signal.SIGPROF, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_PROF, 0.2)
    try:
        fastkl.entropy(np.broadcast_to(p[0], (10_000_000, 1000)), normalize=True, threads=2)
    except KeyboardInterrupt as interrupt:
        where = [frame.name for frame in traceback.extract_tb(interrupt.__traceback__)]
        return "fastkl._kernels.evaluate" in where and compute() == expected
print(child(check))
"""
    assert python(FORK + code) == "0\n"


@posix
def test_a_handler_that_does_not_raise_changes_nothing() -> None:
    """It may even compute."""
    p, q = np.random.default_rng(3).random((2, 20, 1000))
    expected = fastkl.kl_divergence(p, q, normalize=True)
    many = [np.broadcast_to(x, (20_000, *x.shape)) for x in (p, q)]
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(fastkl.kl_divergence(p, q, normalize=True).tobytes()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.02)
        result = fastkl.kl_divergence(*many, normalize=True, threads=2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(seen) == {expected.tobytes()}
    assert result.tobytes() == np.broadcast_to(expected, result.shape).tobytes()


@posix
@pytest.mark.usefixtures("interrupting")
def test_another_thread_is_left_to_its_work() -> None:
    """Signals are the main thread's: it is woken while another thread computes."""
    p, q = np.random.default_rng(4).random((2, 1000))
    many = [np.broadcast_to(x, (1_000_000, 1000)) for x in (p, q)]
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(fastkl.kl_divergence, *many, normalize=True, threads=2)
        with pytest.raises(Interrupted):  # noqa: PT012 - the timer must not ring before
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            done.result()
        result = done.result()
    assert set(result) == {fastkl.kl_divergence(p, q, normalize=True)}


# ---- limits of threads ----


def test_threadpoolctl_limits_the_thread_that_asks() -> None:
    pytest.importorskip("sklearn")  # which brings it
    import threadpoolctl

    before = _kernels.default_threads()
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert _kernels.default_threads() == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(_kernels.default_threads).result() == before
    assert _kernels.default_threads() == before


def test_one_thread_inside_somebodys_parallel_region() -> None:
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
def test_no_thread_is_started_inside_somebodys_parallel_region() -> None:
    """Whatever number is asked for, as of any code with OpenMP there. A thread of Python's counts."""
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


def test_the_cpu_quota_limits_threads_from_the_next_call_on(tmp_path: Path) -> None:
    """And a group that goes away limits nothing."""
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


def test_control_groups_that_cannot_be_looked_at_limit_nothing(tmp_path: Path) -> None:
    for group in b"caf\xe9", b"a" * 300, b"\xe2\x80\xa8":
        (tmp_path / "membership").write_bytes(b"0::/" + group + b"\n")
        assert _build.quota_files(tmp_path / "membership", tmp_path) == []


@counts_threads
def test_more_threads_than_are_of_use_are_not_asked_for() -> None:
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


# ---- modes of arithmetic ----

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
        ([0.5, 0.5], [0.4, 0.6], {"base": 1e-310}),
        ([1e308, -1e308], [0, 0], {"from_logits": True, "temperature": 1e308}),
        ([0, 1e-310], [0, 0], {"from_logits": True, "temperature": 1e-310}),
    ):
        digest.update(fastkl.kl_divergence(p, q, **keywords).tobytes())
        modes.append(mode())
for wrong, keywords in ([0.5, 0.5, -5e-324], {}), (1e-310, {}), ([0.5, 0.5], {"base": -1e-310}):
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


# ---- many threads of Python's, many interpreters ----


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
    """NumPy and Cython know one interpreter a process; whatever they make of another, the first goes on."""
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
