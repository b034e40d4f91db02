"""The number of threads: what limits it, what is never an error, and the warning of a build without OpenMP."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from unittest.mock import Mock

import numpy as np
import pytest
from support.processes import counts_threads, posix, python

import fastkl
from fastkl import _build, _kernels, compat
from fastkl._build import _MOST_BYTES, cpu_quota, quota_files
from fastkl.batch import job

THREADS = "print(fastkl.build_info()['threads'])"


def test_settings_of_openmp_are_respected_or_no_errors():
    assert python(THREADS, OMP_NUM_THREADS="1") == "1\n"
    refused = {"OMP_NUM_THREADS": "0", "OMP_THREAD_LIMIT": "", "OMP_STACKSIZE": "-1", "OMP_DYNAMIC": "1e999"}
    assert int(python(THREADS, **refused)) >= 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity can't be set here")
def test_affinity_is_respected():
    """If it is set before the import, and after it."""
    confine = "import os\nos.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])\n"
    assert python(THREADS, before=confine) == python(confine + THREADS) == "1\n"


def test_threadpoolctl_limits_the_thread_that_calls_it():
    pytest.importorskip("sklearn")  # which brings it
    code = """
from concurrent.futures import ThreadPoolExecutor
import threadpoolctl

def threads():
    with ThreadPoolExecutor(1) as pool:
        return _kernels.default_threads(), pool.submit(_kernels.default_threads).result()

before = threads()
with threadpoolctl.threadpool_limits(1, user_api="openmp"):
    assert threads() == (1, before[1])
assert threads() == before
"""
    python(code)


def test_the_cpu_quota_limits_threads_of_the_next_call(tmp_path):
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


@counts_threads
def test_threads_that_are_of_no_use_are_not_started():
    """Small work starts none, and large work no more than help: where the system refuses one, libgomp ends the process."""
    code = """
def started(rows, threads=None):
    fastkl.entropy(np.broadcast_to(1.0, (rows, 100)), normalize=True, threads=threads)
    return len(os.listdir("/proc/self/task")) - before

before = 0
before = started(1)
info = fastkl.build_info()
most = max(16, 4 * len(os.sched_getaffinity(0))) if info["openmp"] else 1
print([started(rows) for rows in (1, 100, 2000, 20_000)] == [0, 0, 0, info["threads"] - 1])
print(started(1_000_000, 10**9) == most - 1)
"""
    assert python(code, OPENBLAS_NUM_THREADS="1") == "True\nTrue\n"


V1, V2 = ("cpu.cfs_quota_us", "cpu.cfs_period_us"), ("cpu.max",)
# Where a quota stands: the groups, the quota and the period in folders of the mounted ones, and the quota in processors.
PLACES = {
    "no such file": ("0::/", {}, None),
    "at the top": ("0::/", {".": "150000 100000"}, 1.5),
    "own group": ("0::/a/b", {"a/b": "200000 100000"}, 2.0),
    "no limit": ("0::/a/b", {"a/b": "max 100000"}, None),
    "parent's limit": ("0::/a/b", {"a/b": "max 100000", "a": "50000 100000"}, 0.5),
    "the least counts": ("0::/a", {"a": "300000 100000", ".": "400000 100000"}, 3.0),
    "another group's": ("0::/a", {"b": "100000 100000"}, None),
    "v1": ("5:memory:/m\n4:cpu,cpuacct:/a\n0::/", {"cpu/a": "250000 100000"}, 2.5),
    "v1, no limit": ("4:cpuacct,cpu:/a", {"cpu/a": "-1 100000"}, None),
    "v1, of a container": ("4:cpu:/not/mounted/here", {"cpu": "100000 50000"}, 2.0),
    "v1, without the controller": ("4:cpuset:/a", {"cpu/a": "100000 50000"}, None),
}


@pytest.mark.parametrize(("groups", "limits", "quota"), PLACES.values(), ids=PLACES)
def test_cpu_quota(groups, limits, quota, tmp_path):
    (tmp_path / "membership").write_text(f"{groups}\n")
    for folder, numbers in limits.items():
        (tmp_path / "mount" / folder).mkdir(parents=True, exist_ok=True)
        for file, text in zip(V1, numbers.split(), strict=True) if "cpu" in folder else [(V2[0], numbers)]:
            (tmp_path / "mount" / folder / file).write_text(f"{text}\n")
    assert cpu_quota(quota_files(tmp_path / "membership", tmp_path / "mount")) == quota


# What stands where the kernel's file is expected: bytes, or a path that a link names ("": its own), or None for a folder.
STRANGE = [b"", b"\n", b"nonsense, more nonsense\n", bytes(range(256)) * 4, b"0::/caf\xe9\n", None, "", "/dev/zero"]
MEMBERSHIPS = [
    *STRANGE,
    *(b"0\n", b"0:cpu\n", b"0::\n", b"0::/a\0b\n", b"0::/\xe2\x80\xa8\n"),
    *(b"0::/" + b"a" * 300 + b"\n", b"0::/" + b"a/" * 100_000 + b"\n"),
    b"0::/../..\n",  # a group outside of the mounted ones
]
# A quota and its period, in one file of v2 or in two of v1.
QUOTAS = [
    *([b"100000", period] for period in (b"0", b"-100000", b"9" * 99, b"100_000", b"1e5", b"nonsense", b"", b"1 1")),
    *([quota, b"100000"] for quota in (b"0", b"-1", b"-100000", b"1.5", b"+150000", b"\xff", b"1 1", b"9" * 100_000)),
]


def place(file, content):
    if content is None:
        file.mkdir()
    elif isinstance(content, str):
        file.symlink_to(content or file)
    else:
        file.write_bytes(content)


@posix
def test_strange_control_groups_limit_nothing(tmp_path):
    (tmp_path / "mount").mkdir()
    (tmp_path / "cpu.max").write_text("1000 100000\n")
    for i, content in enumerate(MEMBERSHIPS):
        place(tmp_path / str(i), content)
        assert quota_files(tmp_path / str(i), tmp_path / "mount") == [], content


@posix
@pytest.mark.parametrize("names", [V1, V2], ids=["v1", "v2"])
def test_strange_quotas_limit_nothing(names, tmp_path):
    contents = [pair if names == V1 else [b" ".join(pair)] for pair in QUOTAS] + [[x] * len(names) for x in STRANGE]
    for i, several in enumerate(contents):
        files = tuple(tmp_path / str(i) / name for name in names)
        files[0].parent.mkdir()
        for file, content in zip(files, several, strict=True):
            place(file, content)
        assert cpu_quota([files]) is None, several


def test_strange_lines_beside_a_quota(tmp_path):
    """The other lines count, except where there is no end of them: then the last one may be cut."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cpu.max").write_text("100000 100000\n")
    cut = "\n".rjust(_MOST_BYTES - len("0::/a")) + "0::/another\n"
    assert quota_files(tmp_path / "membership", tmp_path) == []  # There is no such file.
    for text, count in ("nonsense\n0::/a\n1:x\n", 1), ("0::/a\n" * 100_000, 1), (cut, 0):
        (tmp_path / "membership").write_text(text)
        assert len(quota_files(tmp_path / "membership", tmp_path)) == count


ROWS = np.broadcast_to(1.0, (1000, 1000))
LARGE = {
    "rows": lambda: fastkl.js_distance(ROWS, ROWS, normalize=True, keepdims=True),
    "two threads": lambda: fastkl.entropy(ROWS[:50], normalize=True, threads=2),
    "one wide row": lambda: fastkl.entropy(ROWS.reshape(-1), normalize=True),
    "halves": lambda: fastkl.entropy(ROWS, normalize=True, out=np.empty(1000, "f2")),
    "logits": lambda: fastkl.kl_divergence(ROWS, ROWS, from_logits=True),
    "labels": lambda: fastkl.nll(np.zeros(1000, int), ROWS, from_logits=True),
    "a comparison": lambda: fastkl.compare(ROWS, ROWS, normalize=True),
    "compat": lambda: compat.scipy.entropy(ROWS, axis=1),
}


@pytest.fixture
def without_openmp(monkeypatch, tmp_path):
    """The build warns as one without OpenMP, on a machine with four processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5, 7}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(_build, "_warned", Lock())
    with monkeypatch.context() as patch:
        patch.setattr(_kernels, "openmp", lambda: False)
        _build.limit_threads(tmp_path / "no membership")
    yield
    _kernels.call_before_threads(None)
    _build.limit_threads()


@pytest.mark.usefixtures("without_openmp")
@pytest.mark.parametrize("call", LARGE.values(), ids=LARGE)
def test_a_build_without_openmp_warns_once(call):
    """The warning names the line that calls fastkl. Calls that need no second thread give none."""
    fastkl.entropy(ROWS[:50], normalize=True)
    fastkl.entropy(ROWS, normalize=True, threads=1)
    with pytest.warns(RuntimeWarning, match=r"has no OpenMP.* one thread.* FASTKL_REQUIRE_OPENMP=1") as caught:
        call()
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, call.__code__.co_firstlineno)]
    call()


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("without_openmp")
def test_an_error_in_place_of_the_warning_computes_nothing():
    out = np.zeros(1000)
    with pytest.raises(RuntimeWarning, match="has no OpenMP"):
        fastkl.entropy(ROWS, normalize=True, out=out)
    assert not out.any()
    assert fastkl.entropy(ROWS, normalize=True, out=out).all()


@pytest.mark.usefixtures("without_openmp")
def test_threads_that_call_at_once_give_one_warning():
    start = Barrier(8)

    def call(_):
        start.wait()
        LARGE["rows"]()

    with ThreadPoolExecutor(8) as pool, pytest.warns(RuntimeWarning) as caught:
        list(pool.map(call, range(8)))
    assert len(caught) == 1


@pytest.mark.usefixtures("without_openmp")
def test_one_processor_needs_no_warning(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    LARGE["rows"]()
    with pytest.warns(RuntimeWarning, match="has no OpenMP"):
        LARGE["two threads"]()


@pytest.mark.parametrize("openmp", [False, True])
@pytest.mark.usefixtures("without_openmp")
def test_threads_of_score_are_those_of_openmp(openmp, tmp_path, monkeypatch):
    """Its threads are Python's, so that it uses as many without OpenMP."""
    monkeypatch.setattr(_kernels, "openmp", lambda: openmp)
    monkeypatch.setattr(_build, "cpu_quota", lambda _: None)
    in_threads = Mock(side_effect=job.in_threads)
    monkeypatch.setattr(job, "in_threads", in_threads)
    np.save(tmp_path / "p.npy", [[0.5, 0.5]])
    assert fastkl.score(tmp_path / "p.npy", measure="entropy", base=2)["mean"] == 1
    assert in_threads.call_args.args[0] == (_kernels.default_threads() if openmp else 4)


@pytest.mark.usefixtures("without_openmp")
def test_threads_that_openmp_would_use(tmp_path, monkeypatch):
    settings = {"": 4, "many": 4, "0": 4, "9" * 9999: 4, "1": 1, " 3 , 2": 3}
    for named, quota, threads in (
        *((name, "max", settings[name]) for name in settings),
        ("9", "150000", 2),
        ("3", "1000", 1),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", named)
        (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
        assert _build.threads_of_openmp([(tmp_path / "cpu.max",)]) == threads, (named, quota)
