"""Forks: a child computes, with one thread, also where C forked and where others have threads in the parent.

What could hang happens in a process of its own. With HYPOTHESIS_PROFILE=night there are 200 forks of each kind.
"""

from __future__ import annotations

import pytest
from processes import NIGHT, counts_threads, posix, python

FORKS = 200 if NIGHT else 10

# A child that hangs is killed by its alarm. The work is enough for three threads.
FORK = """
import ctypes, os, signal, sys, threading, traceback
import numpy as np
import fastkl

p, q = np.random.default_rng(0).random((2, 1000, 1000))

def compute(threads=2):
    return fastkl.kl_divergence(p, q, normalize=True, threads=threads).tobytes()

def child(check, fork=os.fork):
    pid = fork()
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
    return {compute(), compute(3), compute(None), *new} == {expected}

# Python's hooks do not run, and the GIL stays with the thread that forks.
fork_by_c = ctypes.PyDLL(None).fork if sys.platform != "win32" else None
expected = compute()
"""

BESIDE = {
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
}


@posix
@pytest.mark.parametrize("beside", BESIDE)
def test_a_forked_child_computes(beside: str) -> None:
    if beside in ("torch", "sklearn"):
        pytest.importorskip(beside)
    forks = f"""
codes = []
for i in range({FORKS}):
    other()
    compute()
    codes.append(child(check))
codes.append(child(lambda: check() and not child(check)))
stop = True
print(set(codes))
"""
    assert python(FORK + BESIDE[beside] + forks) == "{0}\n"


@posix
@pytest.mark.parametrize("beside", ["nothing", "torch", "sklearn"])
def test_a_child_that_c_forked_computes(beside: str) -> None:
    if beside in ("torch", "sklearn"):
        pytest.importorskip(beside)
    forks = f"""
codes = []
for i in range({FORKS}):
    other()
    compute()
    codes.append(child(lambda: {{compute(), compute(3), compute(None)}} == {{expected}}, fork_by_c))
print(set(codes))
"""
    assert python(FORK + BESIDE[beside] + forks) == "{0}\n"


@posix
@pytest.mark.parametrize("beside", ["nothing", "torch", "sklearn"])
def test_a_handler_that_forks_within_a_call(beside: str) -> None:
    """The call goes on in the parent, and another one is made in the child, which the handler leaves."""
    if beside in ("torch", "sklearn"):
        pytest.importorskip(beside)
    forks = f"""
codes = []
def handle(number, frame):
    codes.append(child(lambda: compute() == expected))
    if len(codes) == {FORKS}:
        raise KeyboardInterrupt
    signal.setitimer(signal.ITIMER_REAL, 0.002)
other()
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    fastkl.entropy(np.broadcast_to(p[0], (100_000_000, 1000)), normalize=True, threads=2)
except KeyboardInterrupt as interrupt:
    where = [frame.name for frame in traceback.extract_tb(interrupt.__traceback__)]
    print(set(codes), len(codes) == {FORKS}, "fastkl._kernels.evaluate" in where)
"""
    assert python(FORK + BESIDE[beside] + forks) == "{0} True True\n"


@posix
def test_a_call_continues_in_a_child_of_its_handler() -> None:
    """The child of a fork within a call has one thread for the rest of it."""
    code = """
pids = []
def handle(number, frame):
    pids.append(os.fork())
    if not pids[-1]:
        signal.alarm(30)
rows = np.broadcast_to(p[0], (2_000_000, 1000))
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.1)
result = fastkl.entropy(rows, normalize=True, threads=2)
same = set(result.tolist()) == {fastkl.entropy(p[0], normalize=True)}
if not pids[0]:
    os._exit(0 if same else 1)
print(same, os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]))
"""
    assert python(FORK + code) == "True 0\n"


@posix
def test_a_pool_of_forked_processes_computes() -> None:
    """The call of each process is made while a thread of Python's is there."""
    code = """
import multiprocessing
def work(i):
    return compute() == expected
with multiprocessing.get_context("fork").Pool(4) as pool:
    print(set(pool.map_async(work, range(40), chunksize=1).get(60)))
"""
    assert python(FORK + code) == "{True}\n"


@counts_threads
def test_a_forked_child_has_one_thread() -> None:
    """Whatever `threads` says, and also where C forked."""
    code = """
def check():
    compute(3), compute(None)
    return len(os.listdir("/proc/self/task")) == 1 and fastkl.build_info()["threads"] == 1
print(child(check), child(check, fork_by_c))
"""
    assert python(FORK + code) == "0 0\n"


@posix
def test_a_signal_is_handled_in_a_forked_child() -> None:
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
