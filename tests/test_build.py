"""The build: build_info, FASTKL_SIMD, what the extension exports, how it is hardened, other builds.

The slow tests, `..._from_source`, compile the package in a temporary folder, with this environment's build tools if it has
them and otherwise, as after a plain `pip install .[test]`, with those that pip fetches.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from support.processes import INSTALLED, python

import fastkl
from fastkl import _kernels

SOURCE = Path(__file__).parents[1]
BUILT = shutil.ignore_patterns("*.so", "*.pyd", "_kernels.c", "__pycache__")


def run(*command, folder, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def last_line(folder, **environment):
    """The message with which the import of fastkl from the folder ends."""
    done = run(sys.executable, "-c", "import fastkl.batch", folder=folder, **{"PYTHONPATH": ""} | environment)
    assert done.returncode == 1
    assert "circular import" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_the_version_and_the_folder_to_include():
    assert str(Version(fastkl.__version__)) == fastkl.__version__
    assert Path(fastkl.get_include(), "fastkl_c.h").is_file()


def test_build_info_tells_what_this_build_is(tier):
    info = fastkl.build_info()
    assert info["simd"] == tier
    assert info["simd_available"] == _kernels.tiers()
    assert _kernels.tiers()[-1] in ("baseline", "neon")  # which every machine has
    assert (type(info["openmp"]), type(info["threads"])) == (bool, int)
    assert info["threads"] >= 1
    assert info["openmp"] or info["threads"] == 1
    assert re.match(r"(gcc|clang) \d|msvc|unknown", info["compiler"])


def test_every_tier_of_the_processor_is_there():
    """Linux tells what an x86 processor can do; each of the others has one tier."""
    listed = Path("/proc/cpuinfo")
    found = re.search(r"^flags\s*: (.*)", listed.read_text() if listed.exists() else "", re.MULTILINE)
    if found:
        needed = {
            "avx512": "avx512f avx512cd avx512bw avx512dq avx512vl",
            "avx2": "avx2 fma bmi1 bmi2 f16c",
            "baseline": "",
        }
        needed["avx512"] += " " + needed["avx2"]
        assert _kernels.tiers() == [tier for tier, flags in needed.items() if {*flags.split()} <= {*found[1].split()}]


def test_fastkl_simd_forces_a_tier():
    """An unusable one is an error on import."""
    code = "print(fastkl.build_info()['simd'], fastkl.entropy([0.5, 0.25, 0.25], base=2))"
    for forced in *_kernels.tiers(), "":
        assert python(code, FASTKL_SIMD=forced) == f"{forced or _kernels.tiers()[0]} 1.5\n"
    usable = ", ".join(_kernels.tiers())
    for unusable in "sse9", "AVX2", "avx2" if "neon" in usable else "neon":
        wanted = f"ImportError: FASTKL_SIMD={unusable!r}: must be one of {usable} on this machine"
        assert last_line(INSTALLED, FASTKL_SIMD=unusable) == wanted


def test_sources_that_are_not_compiled_say_what_to_do(tmp_path):
    """They name a module of another Python. Errors of a module that does not load, or of what it imports, are passed on."""
    folder = tmp_path / "fastkl"
    shutil.copytree(INSTALLED / "fastkl", folder, ignore=BUILT)
    message = last_line(tmp_path)
    assert message.startswith(f"ImportError: {folder} has no compiled module fastkl._kernels for this Python: ")
    assert "`pip install .`" in message
    assert "`python setup.py build_ext --inplace`" in message
    (folder / "_kernels.cpython-27-pdp11.so").touch()
    assert "for this Python (it has _kernels.cpython-27-pdp11.so): " in last_line(tmp_path)
    compiled = folder / f"_kernels{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"of another system")
    message = last_line(tmp_path)
    assert "no compiled module" not in message
    assert compiled.name in message
    compiled.unlink()
    for error in "ImportError: libgomp.so.1: cannot open it", "ModuleNotFoundError: No module named 'numpy'":
        name, _, message = error.partition(": ")
        (folder / "_kernels.py").write_text(f"raise {name}({message!r})")
        assert last_line(tmp_path) == error


LINKERS_OWN = {"_init", "_fini", "__bss_start", "_edata", "_end"}  # exported by older linkers whatever a file asks for


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("readelf"), reason="reads an ELF file with readelf")
def test_the_extension_exports_one_function_and_is_hardened():
    """No memory is both writable and executable, addresses are read-only after loading, and stacks are guarded."""
    done = run("readelf", "--wide", "--segments", "--dynamic", "--dyn-syms", _kernels.__file__, folder=INSTALLED)
    assert done.returncode == 0, done.stderr
    exported = set(re.findall(r" (?:GLOBAL|WEAK|UNIQUE) +\w+ +(?!UND)\w+ (\w+)", done.stdout))
    assert exported - LINKERS_OWN == {"PyInit__kernels"}
    segment = re.compile(r"^ +(\S+)(?: +0x\w+){5} (R?) ?(W?) ?(E?)", re.MULTILINE)
    segments = [(match[1], "".join(match.groups()[1:])) for match in segment.finditer(done.stdout)]
    assert ("GNU_STACK", "RW") in segments
    assert ("GNU_RELRO", "R") in segments
    assert ("LOAD", "RE") in segments
    assert not any("WE" in flags for _, flags in segments)
    assert re.search(r"\((?:FLAGS\) +.*BIND_NOW|FLAGS_1\) +Flags:.* NOW)", done.stdout)
    assert re.search(r" UND __stack_chk_fail\b", done.stdout)
    assert "(TEXTREL)" not in done.stdout


# The bits of all measures on all tiers: rows of a few entries, of some blocks, and wide enough to be shared by threads.
DIGEST = """
import hashlib
rng, digest = np.random.default_rng(1), hashlib.sha256()
for tier in _kernels.tiers():
    _kernels.use_tier(tier)
    for dtype in "df":
        for shape in (2000, 3), (50, 1000), (2, 100_000):
            p, q = rng.random((2, *shape)).astype(dtype)
            digest.update(fastkl.entropy(p, normalize=True).tobytes())
            for measure in fastkl.cross_entropy, fastkl.kl_divergence:
                digest.update(measure(p, q, normalize=True).tobytes())
print(digest.hexdigest())
"""


def build_tools_are_here():
    """Whether this environment has what pyproject.toml requires for a build. pip in isolation fetches it otherwise."""
    text = (SOURCE / "pyproject.toml").read_text()
    requires = ast.literal_eval(re.search(r"^requires = (\[.*?\])", text, re.MULTILINE | re.DOTALL)[1])
    try:
        return all(wanted.specifier.contains(version(wanted.name)) for wanted in map(Requirement, requires))
    except PackageNotFoundError:
        return False


def install(folder, **environment):
    """Build the sources, a copy of them, and install the package into folder/installed."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (folder / "source").mkdir(exist_ok=True)
        shutil.copy(SOURCE / name, folder / "source")
    shutil.copytree(SOURCE / "fastkl", folder / "source" / "fastkl", ignore=BUILT)
    tools = ["--no-build-isolation"] if build_tools_are_here() else []
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", *tools]
    return run(*pip, "--target", str(folder / "installed"), str(folder / "source"), folder=folder, **environment)


@pytest.mark.slow
def test_a_build_without_openmp_gives_the_same_bits_from_source(tmp_path):
    done = install(tmp_path, FASTKL_NO_OPENMP="1")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "installed"
    info = "i = fastkl.build_info(); print(fastkl.__file__, i['openmp'], i['threads'], i['simd_available'])"
    assert python(info, folder) == f"{folder / 'fastkl' / '__init__.py'} False 1 {_kernels.tiers()}\n"
    assert python(DIGEST, folder) == python(DIGEST)
    call = "try: fastkl.entropy(np.ones((1000, 1000)), normalize=True, threads=2)\nexcept RuntimeWarning as x: print(x)"
    assert python(call, folder, PYTHONWARNINGS="error").startswith("this build of fastkl has no OpenMP")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the compiler is wrapped in a shell script")
def test_required_openmp_that_is_missing_from_source(tmp_path):
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC")
    without = tmp_path / "cc-without-openmp"
    without.write_text(f'#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1 ;; esac\nexec {compiler} "$@"\n')
    without.chmod(0o755)
    done = install(tmp_path, CC=str(without), FASTKL_REQUIRE_OPENMP="1", FASTKL_NO_OPENMP="")
    assert done.returncode != 0
    assert "FASTKL_REQUIRE_OPENMP=1, but nothing with OpenMP compiles and links here" in done.stdout + done.stderr
    assert not (tmp_path / "installed").exists()
