"""What is checked, as sessions: `nox -s lint`. `.ci/run` runs most of them, as a new machine would see them.

`lint` and `pythons` install the wheel of `package` if it runs before them: `nox -s package lint pythons`.
"""

import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.sessions = ["tests", "lint"]
nox.options.error_on_missing_interpreters = False

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
built = "."  # what pip installs: the sources, or the wheel of `package`
# Where tools/check_skips.py finds what pytest reports.
REPORTS = Path(os.environ.get("FASTKL_REPORTS", ".nox/reports"))
# What another Python or NumPy could break; numbers depend on the C compiler only.
SHORT = ["arrays", "build", "demo", "docs", "forks", "messages", "process", "signals"]
LARGEST_WHEEL = 2_000_000
# The only sources in a wheel: those that compiled callers need.
SOURCES = {f"fastkl/{name}" for name in ("__init__.pxd", "_kernels.pxd", "include/fastkl_c.h", "include/fastkl_measures.h")}


def pytest(session: nox.Session, *arguments: str, report: str) -> None:
    """Run pytest, and leave a report."""
    session.run("pytest", *arguments, f"--junit-xml={REPORTS / report}.xml")


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, without the libraries that they may compare with. Arguments are pytest's: `nox -s tests -- --slow`."""
    session.install(".[test]")
    pytest(session, *session.posargs, report="tests")


@nox.session
def lint(session: nox.Session) -> None:
    """The linters."""
    session.install(f"{built}[lint]")
    for command in [
        "ruff check .",
        "ruff format --check .",
        "cython-lint fastkl",
        "mypy",
        "mypy tests/typing_page.py " + " ".join(map(str, Path("tools").glob("check_*.py"))),
        "pyright tests/typing_page.py",
        *[f"python tools/check_{what}.py" for what in ("structure", "imports", "docstrings", "release")],
    ]:
        session.run(*command.split())


@nox.session
def package(session: nox.Session) -> None:
    """The sdist and the wheel for all Pythons, as releases have them: contents, metadata, size."""
    global built
    session.install(*nox.project.dependency_groups(PYPROJECT, "package"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("bash", "tools/release.sh", "dist", external=True, env={"FASTKL_ABI3": "1"})
    (sdist,), (wheel,) = Path("dist").glob("*.tar.gz"), Path("dist").glob("*.whl")
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    session.run("abi3audit", "--strict", "--report", str(wheel))
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    listed = session.run("git", "ls-files", external=True, silent=True)
    left_out = {name for name in str(listed).split() if not name.startswith(".")} - packed
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {name for name in names if name.endswith((".c", ".h", ".pyx", ".pxd", ".pxi"))}
    modules = [name for name in names if name.startswith("fastkl/_kernels.") and name.endswith((".so", ".pyd"))]
    others = {name for name in names if not name.startswith(("fastkl/", "fastkl-"))}
    if left_out or sources != SOURCES or len(modules) != 1 or others or "fastkl/py.typed" not in names:
        session.error(f"not in the sdist: {left_out}; in the wheel: {sources}, {modules}, {others}")
    if wheel.stat().st_size > LARGEST_WHEEL:
        session.error(f"{wheel} has {wheel.stat().st_size} bytes")
    built = str(wheel)


@nox.session
def peers(session: nox.Session) -> None:
    """All tests and, once, the benchmarks, with all libraries that they may compare with; built by clang, with OpenMP."""
    probe = ["clang", "-fopenmp", "-E", "-include", "omp.h", "-xc", os.devnull]
    if shutil.which("clang") and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        session.env["CC"] = "clang"  # for the tests, too: some build the package again
    else:
        session.warn("clang with OpenMP is not on this machine: the default compiler builds")
    shutil.rmtree("build", ignore_errors=True)  # by another compiler
    session.install(".[test,bench]", *nox.project.dependency_groups(PYPROJECT, "peers"), env={"FASTKL_REQUIRE_OPENMP": "1"})
    pytest(session, "--slow", "-p", "no:benchmark", *session.posargs, report="peers")
    pytest(session, "benchmarks", "--benchmark-disable", "-k", "100x1000", report="benchmarks")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, in docs/_build: its examples, a build without a warning, its links, and its pages in Chromium.

    Examples that need torch are left out, as it is large: `peers` runs them, too.
    """
    site = Path("docs/_build")
    session.install(f"{built}[test]", *nox.project.dependency_groups(PYPROJECT, "docs"))
    pytest(
        session, "-n", "logical", "tests/test_docs.py", "tests/test_pictures.py", "--slow", *session.posargs, report="docs"
    )
    for made in site, Path("docs/reference/generated"):
        shutil.rmtree(made, ignore_errors=True)
    session.run(
        "sphinx-build", "--quiet", "--fail-on-warning", "--keep-going", "--nitpicky", "--jobs=auto", "docs", str(site)
    )
    session.run("python", "tools/check_site.py", str(site))
    session.env["FASTKL_SITE"] = str(site.resolve())
    pytest(session, "tests/test_docs_browser.py", "--slow", report="site")


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """A short test under every Python that this machine has, the oldest with the oldest NumPy."""
    version = str(session.python)
    source = "." if version.endswith("t") else built  # the wheel is not for free-threaded Pythons
    session.install(f"{source}[test]", *["numpy==2.0.*"] * (version == PYTHONS[0]))
    files = [f"tests/test_{name}.py" for name in SHORT]
    pytest(session, *files, "-k", "not from_source", report=f"python{version}")


@nox.session
def bench(session: nox.Session) -> None:
    """The figures of README.md; the machine must have nothing else to do."""
    session.install(".[bench]")
    session.run("python", "benchmarks/report.py", *session.posargs)
