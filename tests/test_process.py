"""Behaviour inside another program's process: parallel regions, floating-point modes, Python's threads, subinterpreters.

What could spoil this process for other tests happens in a process of its own. A build without OpenMP passes trivially where
threads are counted. Forks, signals and the number of threads have files of their own.
"""

import sys

import pytest
from support.processes import SLOW, counts_threads, posix, python


@counts_threads
def test_one_thread_within_a_foreign_parallel_region():
    """A region of this very OpenMP: its entry for compiled code, called with a function of Python's. Settings stay.

    No number of threads changes that, as for any code with OpenMP there. A thread of Python's counts them.
    """
    code = """
openmp = ctypes.CDLL(_kernels.__file__)
if not hasattr(openmp, "GOMP_parallel"):
    assert not fastkl.build_info()["openmp"]
    raise SystemExit
x, y = np.random.default_rng(0).random((2, 8, 300_000))
threads, values, most, stop = [], [], 0, False

def compute(threads):
    logits = fastkl.cross_entropy(x, y, from_logits=True, threads=threads)
    return logits.tobytes() + fastkl.kl_divergence(x.T, y.T, axis=0, normalize=True, threads=threads).tobytes()

@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def body(_):
    threads.append(_kernels.default_threads())
    values.extend(map(compute, (None, 4)))

def count():
    global most
    while not stop:
        most = max(most, len(os.listdir("/proc/self/task")))

def settings():
    return openmp.omp_get_max_threads(), openmp.omp_get_dynamic(), openmp.omp_get_max_active_levels()

before = settings()
openmp.GOMP_parallel(body, None, 2, 0)
tasks = len(os.listdir("/proc/self/task"))
thread = threading.Thread(target=count)
thread.start()
for i in range(10):
    openmp.GOMP_parallel(body, None, 2, 0)
stop = True
thread.join()
assert most == tasks + 1, (most, tasks)
assert settings() == before
assert set(threads) == {1}
assert set(values) == {compute(3)}
"""
    python(code, OPENBLAS_NUM_THREADS="1")


@posix
def test_kernels_run_on_small_stacks():
    """A little less than the 128 kB that musl gives a thread: both to threads of OpenMP and to one of Python."""
    code = """
def compute():
    for shape in (600, 7), (50, 1000), (2, 17_000):
        p, q = np.random.default_rng(0).random((2, *shape))
        for x, y in (p, q), (p.astype("f4"), q.astype("f4")), (p.copy("F"), q.copy("F")), (1e-310 * p[:1], q[:1]):
            for logits in False, True:
                keywords = {"normalize": True, "from_logits": logits, "threads": 2}
                fastkl.entropy(x, **keywords)
                for measure in fastkl.cross_entropy, fastkl.kl_divergence, fastkl.js_divergence:
                    measure(x, y, **keywords)
                fastkl.kl_divergence(x, y, eps=0.1, temperature=2 if logits else 1, **keywords)
                fastkl.compare(x, y, np.zeros(len(x), int), **keywords)
                fastkl.nll(np.zeros(len(x), int), y, label_smoothing=0.1, **keywords)
    done.append(_kernels.tier_in_use())

done = []
threading.stack_size(120 * 1024)
for tier in _kernels.tiers():
    _kernels.use_tier(tier)
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
print(done == _kernels.tiers())
"""
    assert python(code, OMP_STACKSIZE="120k") == "True\n"


# glibc's fenv_t: eight words on x86-64, of which the last is MXCSR; on arm64 two, of which the first is FPCR.
HOST = """
import ctypes, ctypes.util, hashlib, platform, warnings

libm = ctypes.CDLL(ctypes.util.find_library("m"))
word, flush, flags = (7, 0x8040, 0x3F) if platform.machine() == "x86_64" else (0, 1 << 24, 0)

def mode(added=0):
    words = (ctypes.c_uint32 * 8)()
    libm.fegetenv(words)
    if added:
        words[word] |= added
        libm.fesetenv(words)
    return words[word] & ~flags

before = mode(flush if FLUSHED else 0)
import numpy as np
warnings.simplefilter("ignore")  # that subnormal numbers are zero here, says NumPy
np.finfo("d"), np.finfo("f"), np.finfo("e")
warnings.simplefilter("error")
"""
MODES = """
_kernels.call_before_threads(None)  # A build without OpenMP would warn.
modes = [mode()]
rng, digest = np.random.default_rng(1), hashlib.sha256()
for tier in _kernels.tiers():
    _kernels.use_tier(tier)
    for unsigned, dtype, fraction in (np.uint64, "d", 52), (np.uint32, "f", 23):
        # Numbers from the least subnormal on, by their bits, for arithmetic here is the host's.
        for shape in SHAPES:
            bits = rng.integers(1, 1 << (fraction + 1), (2, *shape)).astype(unsigned)
            bits[:, :, ::3] += unsigned(40 << fraction)
            p, q = bits.view(dtype)
            for threads in THREADS:
                out = np.empty(shape[:1], ("d", "d", ">f4", "e")[threads - 1])
                keywords = {"normalize": True, "threads": threads, "out": out}
                for name in "entropy", "cross_entropy", "kl_divergence", "js_distance":
                    operands = (p,) if name == "entropy" else (p, q)
                    digest.update(getattr(fastkl, name)(*operands, **keywords).tobytes())
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
for wrong, keywords in (
    *(([0.5, 0.5, -5e-324], {}), (1e-310, {}), ([0.5, 0.5], {"base": 1e-310})),
    *(([0.5, 0.5], {"q": [0.5, 0.5], "eps": -1e-310}), ([[0.5, 0.5], [np.nan, 1]], {})),
):
    try:
        (fastkl.kl_divergence if "q" in keywords else fastkl.entropy)(wrong, **keywords)
    except ValueError as error:
        digest.update(str(error).encode())
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
def test_a_host_that_flushes_subnormals_gets_the_same_bits():
    """In every thread: the flushing one starts them all. No mode is changed by the import, a call, an error or a signal."""
    small, large = "((350, 100), (2, 17_000)), (2, 4)", "((4000, 100), (2, 100_000)), (1, 2, 3, 4)"
    code = f"SHAPES, THREADS = {large if SLOW else small}\n{MODES}"
    plain, flushing = (python(code, before=f"FLUSHED = {flushed}\n{HOST}").split() for flushed in (False, True))
    assert plain[1:3] == ["True", "False"]
    assert flushing[1:3] == ["True", "True"]
    assert (plain[0], plain[3]) == (flushing[0], flushing[3])


def test_a_subinterpreter_is_refused_or_served():
    """NumPy and Cython know one interpreter a process. Whether they accept another or not, the first goes on."""
    code = """
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
