"""Forks: a child computes, with one thread, also where C forked and where others have threads in the parent.

What could hang happens in a process of its own. With HYPOTHESIS_PROFILE=night there are 200 forks of each kind.
"""

import pytest
from support.processes import NIGHT, SLOW, posix, python

FORKS = 200 if NIGHT else 10 if SLOW else 3

# A child that hangs is killed by its alarm. The work is enough for three threads.
FORK = """
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
    same = {compute(), compute(3), compute(None)} == {expected}
    alone = sys.platform != "linux" or len(os.listdir("/proc/self/task")) == 1
    return same and alone and fastkl.build_info()["threads"] == 1

def check_beside_a_thread():
    new = []
    thread = threading.Thread(target=lambda: new.append(compute()))
    thread.start()
    thread.join()
    return new == [expected]

# Python's hooks do not run, and the GIL stays with the thread that forks.
fork_by_c = ctypes.PyDLL(None).fork if sys.platform != "win32" else None
expected = compute()
"""

BESIDE = {
    "nothing": "def other(): pass",
    "a busy thread": """
stop = False
def other(): pass
def work():
    while not stop:
        compute()
threading.Thread(target=work).start()
""",
    "torch": """
import torch
x = torch.rand(1_000_000)
torch.set_num_threads(2)
def other(): x.exp().sum()
""",
    "sklearn": """
from sklearn.cluster import KMeans
def other(): KMeans(3, n_init=1, random_state=0).fit(p[:, :4])
""",
}
WAYS = {
    "by Python": """
for i in range(FORKS):
    other()
    compute()
    codes.append(child(lambda: check() and check_beside_a_thread()))
codes.append(child(lambda: check() and not child(check)))
stop = True
""",
    "by C": """
for i in range(FORKS):
    other()
    compute()
    codes.append(child(check, fork_by_c))
""",
    # The call goes on in the parent, and another one is made in the child, which the handler leaves.
    "by a handler within a call": """
def handle(number, frame):
    codes.append(child(check))
    if len(codes) == FORKS:
        raise KeyboardInterrupt
    signal.setitimer(signal.ITIMER_REAL, 0.002)
other()
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    fastkl.entropy(np.broadcast_to(p[0], (100_000_000, 1000)), normalize=True, threads=2)
except KeyboardInterrupt as interrupt:
    assert "fastkl._kernels.evaluate" in [frame.name for frame in traceback.extract_tb(interrupt.__traceback__)]
    codes.append(len(codes) - FORKS)
else:
    codes.append("not interrupted")
""",
}


@posix
@pytest.mark.parametrize(
    ("beside", "way"), [(b, w) for b in BESIDE for w in WAYS if b != "a busy thread" or w == "by Python"]
)
def test_a_forked_child_computes(beside, way):
    if beside in ("torch", "sklearn"):
        pytest.importorskip(beside)
    code = f"{FORK}{BESIDE[beside]}\nFORKS, codes = {FORKS}, []\n{WAYS[way]}\nprint(set(codes))"
    assert python(code) == "{0}\n"


OTHERS = {
    # The child of a fork within a call has one thread for the rest of it.
    "a call continues in a child of its handler": """
pids = []
def handle(number, frame):
    pids.append(os.fork())
    if not pids[-1]:
        signal.alarm(30)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.02)
result = fastkl.entropy(np.broadcast_to(p[0], (300_000, 1000)), normalize=True, threads=2)
same = set(result.tolist()) == {fastkl.entropy(p[0], normalize=True)}
if not pids[0]:
    os._exit(0 if same else 1)
codes = [os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]), 1 - same]
""",
    # The call of each process is made while a thread of Python's is there.
    "a pool of forked processes computes": """
import multiprocessing
def work(i):
    return 1 - (compute() == expected)
with multiprocessing.get_context("fork").Pool(4) as pool:
    codes = pool.map_async(work, range(40), chunksize=1).get(60)
""",
    "a signal is handled in a child": """
def check():
    signal.signal(signal.SIGPROF, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_PROF, 0.2)
    try:
        fastkl.entropy(np.broadcast_to(p[0], (10_000_000, 1000)), normalize=True, threads=2)
    except KeyboardInterrupt as interrupt:
        where = [frame.name for frame in traceback.extract_tb(interrupt.__traceback__)]
        return "fastkl._kernels.evaluate" in where and compute() == expected
codes = [child(check)]
""",
}


@posix
@pytest.mark.parametrize("code", OTHERS.values(), ids=OTHERS)
def test_forks_and_signals(code):
    assert python(f"{FORK}{code}\nprint(set(codes))") == "{0}\n"
