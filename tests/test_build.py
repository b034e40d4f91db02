"""The build: build_info, FASTKL_SIMD, what the extension exports, how it is hardened, other builds, CPU quotas.

The tests named `..._from_source` compile the package in a temporary folder: with this environment's build tools if it has
them and otherwise, as after a plain `pip install .[test]`, with those that pip fetches. `-k "not from_source"` omits them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import fastkl
from fastkl import _kernels
from fastkl._build import cpu_quota, quota_files

SOURCE = Path(__file__).parents[1]
INSTALLED = Path(fastkl.__file__).parents[1]

INFO = "import json, fastkl; print(json.dumps(fastkl.build_info()))"


def run(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def python(code: str, folder: Path = INSTALLED, **environment: str) -> str:
    """The output of the code. Its interpreter starts in `folder`, and so imports fastkl from there."""
    done = run(sys.executable, "-c", code, folder=folder, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- build_info and the environment ----


def test_version() -> None:
    assert str(Version(fastkl.__version__)) == fastkl.__version__


def test_the_folder_to_include_has_the_header() -> None:
    assert Path(fastkl.get_include(), "fastkl_c.h").is_file()


def test_build_info_names_the_tier_in_use(tier: str) -> None:
    info = fastkl.build_info()
    assert info["simd"] == tier
    assert info["simd_available"] == _kernels.tiers()


def test_build_info_speaks_of_openmp_and_the_compiler() -> None:
    info = fastkl.build_info()
    assert type(info["openmp"]) is bool
    assert type(info["threads"]) is int
    assert info["threads"] >= 1
    assert info["openmp"] or info["threads"] == 1
    assert re.match(r"(gcc|clang) \d|msvc|unknown", info["compiler"])


def test_the_last_tier_is_one_that_every_machine_has() -> None:
    assert _kernels.tiers()[-1] in ("baseline", "neon")


@pytest.mark.parametrize("forced", _kernels.tiers())
def test_fastkl_simd_forces_a_tier(forced: str) -> None:
    assert json.loads(python(INFO, FASTKL_SIMD=forced))["simd"] == forced
    assert python("import fastkl; print(fastkl.entropy([0.5, 0.25, 0.25], base=2))", FASTKL_SIMD=forced) == "1.5\n"


def test_an_empty_fastkl_simd_forces_nothing() -> None:
    assert json.loads(python(INFO, FASTKL_SIMD=""))["simd"] == _kernels.tiers()[0]


@pytest.mark.parametrize("unusable", ["sse9", "AVX2", "avx2" if "neon" in _kernels.tiers() else "neon"])
def test_an_unusable_fastkl_simd_is_an_error_on_import(unusable: str) -> None:
    done = run(sys.executable, "-c", "import fastkl", folder=INSTALLED, FASTKL_SIMD=unusable)
    usable = ", ".join(_kernels.tiers())
    wanted = f"ImportError: FASTKL_SIMD={unusable!r}: must be one of {usable} on this machine"
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == wanted


def test_omp_num_threads_is_respected() -> None:
    assert json.loads(python(INFO, OMP_NUM_THREADS="1"))["threads"] == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity can't be set here")
@pytest.mark.parametrize("when", ["before the import", "after it"])
def test_affinity_is_respected(when: str) -> None:
    confine = "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])"
    lines = [confine, "import fastkl"] if when == "before the import" else ["import fastkl", confine]
    assert json.loads(python("\n".join([*lines, INFO])))["threads"] == 1


# ---- CPU quota of control groups ----

V1, V2 = ("cpu.cfs_quota_us", "cpu.cfs_period_us"), ("cpu.max",)


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        pytest.param("0::/\n", {}, None, id="v2, no such file"),
        pytest.param("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5, id="v2, at the top"),
        pytest.param("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n"}, 2.0, id="v2, own group"),
        pytest.param("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, None, id="v2, no limit"),
        pytest.param(
            "0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5, id="v2, parent's limit"
        ),
        pytest.param(
            "0::/a\n", {"a/cpu.max": "300000 100000\n", "cpu.max": "400000 100000\n"}, 3.0, id="v2, the least counts"
        ),
        pytest.param("0::/a\n", {"b/cpu.max": "100000 100000\n"}, None, id="v2, another group's"),
        pytest.param("0::/a\n", {"a/cpu.max": "nonsense\n"}, None, id="v2, unreadable"),
        pytest.param(
            "5:memory:/m\n4:cpu,cpuacct:/a\n0::/\n",
            {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            2.5,
            id="v1",
        ),
        pytest.param(
            "4:cpuacct,cpu:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            None,
            id="v1, no limit",
        ),
        pytest.param(
            "4:cpu:/not/mounted/here\n",
            {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "50000\n"},
            2.0,
            id="v1, of a container",
        ),
        pytest.param(
            "4:cpuset:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "100000\n", "cpu/a/cpu.cfs_period_us": "50000\n"},
            None,
            id="v1, without the controller",
        ),
    ],
)
def test_cpu_quota(tmp_path: Path, membership: str, files: dict[str, str], quota: float | None) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        file = tmp_path / "mount" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert cpu_quota(quota_files(tmp_path / "membership", tmp_path / "mount")) == quota


def test_no_control_groups_no_quota(tmp_path: Path) -> None:
    assert quota_files(tmp_path / "membership", tmp_path / "mount") == []
    assert cpu_quota([]) is None


# ---- the extension file ----

LINKERS_OWN = {"_init", "_fini", "__bss_start", "_edata", "_end"}  # exported by older linkers whatever a file asks for


binutils = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("nm") and shutil.which("readelf")),
    reason="reads an ELF file with nm or readelf",
)


@binutils
def test_the_extension_exports_its_init_function_alone() -> None:
    done = run("nm", "-D", "--defined-only", "--format=posix", _kernels.__file__, folder=INSTALLED)
    assert {line.split()[0] for line in done.stdout.splitlines()} - LINKERS_OWN == {"PyInit__kernels"}


@binutils
def test_the_extension_is_hardened() -> None:
    """No memory is both writable and executable, addresses are read-only after loading, and stacks are guarded."""
    done = run("readelf", "--wide", "--segments", "--dynamic", "--dyn-syms", _kernels.__file__, folder=INSTALLED)
    assert done.returncode == 0, done.stderr
    segment = re.compile(r"^ +(\S+)(?: +0x\w+){5} (R?) ?(W?) ?(E?)", re.MULTILINE)
    segments = [(match[1], "".join(match.groups()[1:])) for match in segment.finditer(done.stdout)]
    assert ("GNU_STACK", "RW") in segments
    assert ("GNU_RELRO", "R") in segments
    assert ("LOAD", "RE") in segments
    assert not any("WE" in flags for _, flags in segments)
    assert re.search(r"\((?:FLAGS\) +.*BIND_NOW|FLAGS_1\) +Flags:.* NOW)", done.stdout)
    assert re.search(r" UND __stack_chk_fail\b", done.stdout)
    assert "(TEXTREL)" not in done.stdout


# ---- builds from source ----

# The bits of all measures on all tiers: rows of a few entries, of some blocks, and wide enough to be shared by threads.
DIGEST = """
import hashlib
import numpy as np
import fastkl
from fastkl import _kernels

rng, digest = np.random.default_rng(1), hashlib.sha256()
for tier in _kernels.tiers():
    _kernels.use_tier(tier)
    for dtype in "df":
        for shape in (2000, 3), (50, 1000), (2, 100_000):
            p, q = rng.random((2, *shape)).astype(dtype)
            for result in (
                fastkl.entropy(p, normalize=True),
                fastkl.cross_entropy(p, q, normalize=True),
                fastkl.kl_divergence(p, q, normalize=True),
            ):
                digest.update(result.tobytes())
print(digest.hexdigest())
"""


def build_tools_are_here() -> bool:
    """Whether this environment has what pyproject.toml requires for a build. pip in isolation fetches it otherwise."""
    text = (SOURCE / "pyproject.toml").read_text()
    requires = ast.literal_eval(re.search(r"^requires = (\[.*?\])", text, re.MULTILINE | re.DOTALL)[1])
    try:
        return all(wanted.specifier.contains(version(wanted.name)) for wanted in map(Requirement, requires))
    except PackageNotFoundError:
        return False


def install(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build the sources, a copy of them, and install the package into folder/installed."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (folder / "source").mkdir(exist_ok=True)
        shutil.copy(SOURCE / name, folder / "source")
    built = shutil.ignore_patterns("*.so", "*.pyd", "_kernels.c", "__pycache__")
    shutil.copytree(SOURCE / "fastkl", folder / "source" / "fastkl", ignore=built)
    tools = ["--no-build-isolation"] if build_tools_are_here() else []
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", *tools]
    return run(*pip, "--target", str(folder / "installed"), str(folder / "source"), folder=folder, **environment)


def test_a_build_without_openmp_gives_the_same_bits_from_source(tmp_path: Path) -> None:
    done = install(tmp_path, FASTKL_NO_OPENMP="1")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "installed"
    assert python("import fastkl; print(fastkl.__file__)", folder) == f"{folder / 'fastkl' / '__init__.py'}\n"
    info = json.loads(python(INFO, folder))
    assert (info["openmp"], info["threads"]) == (False, 1)
    assert info["simd_available"] == _kernels.tiers()
    assert python(DIGEST, folder) == python(DIGEST)


@pytest.mark.skipif(os.name == "nt", reason="the compiler is wrapped in a shell script")
def test_required_openmp_that_is_missing_from_source(tmp_path: Path) -> None:
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC")
    without = tmp_path / "cc-without-openmp"
    without.write_text(f'#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1 ;; esac\nexec {compiler} "$@"\n')
    without.chmod(0o755)
    done = install(tmp_path, CC=str(without), FASTKL_REQUIRE_OPENMP="1", FASTKL_NO_OPENMP="")
    assert done.returncode != 0
    assert "FASTKL_REQUIRE_OPENMP=1, but nothing with OpenMP compiles and links here" in done.stdout + done.stderr
    assert not (tmp_path / "installed").exists()
