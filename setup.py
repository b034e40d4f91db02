"""Builds fastkl._kernels: one Cython module over plain C. The rest of the configuration is in pyproject.toml.

FASTKL_REQUIRE_OPENMP=1 makes a build without OpenMP an error; FASTKL_NO_OPENMP=1 makes a build without it. FASTKL_ABI3=1
makes one module for every CPython from 3.10 on, as in releases. SOURCE_DATE_EPOCH is the time of files in sdist and wheel.
"""

import gzip
import json
import os
import sys
import tarfile
import tempfile
import time
from glob import glob
from pathlib import Path

import Cython
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

# No errno and no traps, so that the maths vectorises; contraction only where the source says fma. Never -ffast-math.
FLAGS = {
    "unix": ["-O3", "-std=c11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"],
    "msvc": ["/O2", "/std:c11", "/fp:precise"],
}
# GCC does not schedule instructions before it allocates registers by default: 5 % of speed in AVX-512, 15 % in AVX2.
GCC_FLAGS = ["-fschedule-insns", "-fsched-pressure"]
GCC_PROBE = """
#if !defined(__GNUC__) || defined(__clang__)
#error "not GCC"
#endif
int probe(void) { return 0; }
"""
# Compile and link arguments for OpenMP: of Linux, then of Apple's clang with Homebrew's or conda's libomp.
OPENMP = {
    "unix": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],
    "msvc": [(["/openmp"], [])],
}
OPENMP_PROBE = "#include <omp.h>\nint probe(void) { return omp_get_max_threads(); }\n"
# Each is used where it compiles and links: copies into buffers of known size are checked (level 3 would call a function in
# hot loops), stacks are guarded, tables of addresses are read-only once the module is loaded, and no stack is executable.
HARDENING = [
    (["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"], []),
    (["-fstack-protector-strong"], []),
    ([], ["-Wl,-z,relro,-z,now"]),
    ([], ["-Wl,-z,noexecstack"]),
]
HARDENING_PROBE = """
#include <string.h>
int probe(const char *text) { char copy[64]; strcpy(copy, text); return copy[text[0] & 63]; }
"""
ABI3 = os.environ.get("FASTKL_ABI3") == "1"


def component(name, version, licence, description, **more):
    """Return an entry of a bill of materials: a package of the index, and its part in the wheel."""
    url = f"pkg:pypi/{name}" + (f"@{version}" if version else "")
    licences = [{"license": {"id": licence}}]
    about = {"type": "library", "bom-ref": url, "purl": url, "name": name, "description": description, "licenses": licences}
    return about | ({"version": version} if version else {}) | more


class Build(build_ext):
    """Adds those flags of the compiler with which a shared object compiles and links."""

    def build_extensions(self):
        kind = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        compile_args, link_args = self.find_openmp(OPENMP[kind])
        flags = FLAGS[kind] + (GCC_FLAGS if self.links(GCC_PROBE, GCC_FLAGS, []) else [])
        if kind == "unix" and "-g" not in os.environ.get("CFLAGS", ""):
            flags.append("-g0")  # overrides -g in Python's own flags: four fifths of the file
        for option in HARDENING if kind == "unix" else []:
            if self.links(HARDENING_PROBE, *option):
                compile_args, link_args = compile_args + option[0], link_args + option[1]
        for extension in self.extensions:
            extension.extra_compile_args += flags + compile_args
            extension.extra_link_args += link_args
        super().build_extensions()

    def find_openmp(self, candidates):
        if os.environ.get("FASTKL_NO_OPENMP") != "1":
            for compile_args, link_args in candidates:
                if self.links(OPENMP_PROBE, compile_args, link_args):
                    return compile_args, link_args
            if os.environ.get("FASTKL_REQUIRE_OPENMP") == "1":
                sys.exit("FASTKL_REQUIRE_OPENMP=1, but nothing with OpenMP compiles and links here")
        print("fastkl is built without OpenMP: it will use one thread", file=sys.stderr)
        return [], []

    def links(self, text, compile_args, link_args):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(text)
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=compile_args)
                # Linked as the module is: on macOS, LDFLAGS applies to shared objects only.
                self.compiler.link_shared_object(objects, str(Path(folder, "probe.so")), extra_postargs=link_args)
            except Exception:  # each compiler class has errors of its own
                return False
        return True


class Wheel(bdist_wheel):
    """Adds a bill of materials, in CycloneDX, in the place of PEP 770: what the wheel contains and what it needs."""

    def egg2dist(self, egginfo_path, distinfo_path):
        super().egg2dist(egginfo_path, distinfo_path)
        metadata = self.distribution.metadata
        compiled = [
            component("cython", Cython.__version__, "Apache-2.0", "its run-time support is compiled into fastkl._kernels"),
            component("numpy", numpy.__version__, "BSD-3-Clause", "its headers are compiled into fastkl._kernels"),
        ]
        whole = component(
            metadata.name, metadata.version, metadata.license_expression, metadata.description, components=compiled
        )
        (required,) = self.distribution.install_requires
        versions = required.replace("numpy", "vers:pypi/")
        numpy_itself = component("numpy", None, "BSD-3-Clause", "required", isExternal=True, versionRange=versions)
        bill = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.7",
            "version": 1,
            "metadata": {"component": whole},
            "components": [numpy_itself],
            "dependencies": [{"ref": whole["bom-ref"], "dependsOn": [numpy_itself["bom-ref"]]}],
        }
        folder = Path(distinfo_path, "sboms")
        folder.mkdir()
        Path(folder, f"{metadata.name}.cdx.json").write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n")

    def write_wheelfile(self, wheelfile_base, **options):
        super().write_wheelfile(wheelfile_base, **options)
        for path in Path(self.bdist_dir).rglob("*"):  # whatever the umask is
            path.chmod(0o755 if path.is_dir() or path.suffix in (".so", ".pyd") else 0o644)


class Archive(sdist):
    """Makes the same bytes from the same sources: without the owner of files, with the time of SOURCE_DATE_EPOCH."""

    def make_archive(self, base_name, kind, root_dir=None, base_dir=None, **owners):
        if kind != "gztar":
            return super().make_archive(base_name, kind, root_dir, base_dir, **owners)
        path, when = f"{base_name}.tar.gz", int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))

        def anonymous(entry):
            entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime = 0, 0, "", "", when
            entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            return entry

        with (
            open(path, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=when) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            archive.add(base_dir, filter=anonymous)
        return path


setup(
    ext_modules=cythonize(
        Extension(
            "fastkl._kernels",
            ["fastkl/_kernels.pyx", *sorted(glob("fastkl/_core/*.c"))],
            depends=[*glob("fastkl/_core/*.h"), *glob("fastkl/include/*.h")],
            include_dirs=["fastkl", numpy.get_include()],
            libraries=["dl"] * sys.platform.startswith("linux"),  # dladdr, before glibc 2.34
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *[("Py_LIMITED_API", "0x030A0000")] * ABI3],
            py_limited_api=ABI3,
        ),
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": True,
        },
    ),
    cmdclass={"build_ext": Build, "bdist_wheel": Wheel, "sdist": Archive},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if ABI3 else {},
)
