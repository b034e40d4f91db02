"""Builds fastkl._kernels: one Cython module over plain C. All else is in pyproject.toml.

FASTKL_REQUIRE_OPENMP=1 makes a build without OpenMP an error; FASTKL_NO_OPENMP=1 makes one without it.
"""

import os
import sys
import tempfile
from glob import glob
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# No errno and no traps, so that the maths vectorises; no contraction but where the source says fma. Never -ffast-math.
FLAGS = {
    "unix": ["-O3", "-std=c11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"],
    "msvc": ["/O2", "/std:c11", "/fp:precise"],
}
# GCC alone does not order the instructions before it hands out registers unless told to: 5 % in AVX-512, 15 % in AVX2.
GCC_FLAGS = ["-fschedule-insns", "-fsched-pressure"]
GCC_PROBE = """
#if !defined(__GNUC__) || defined(__clang__)
#error "not GCC"
#endif
int probe(void) { return 0; }
"""
# Ways to ask for OpenMP, compile and link arguments: Linux, then Apple's clang with Homebrew's or conda's libomp.
OPENMP = {
    "unix": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],
    "msvc": [(["/openmp"], [])],
}
OPENMP_PROBE = "#include <omp.h>\nint probe(void) { return omp_get_max_threads(); }\n"
# Each where it compiles and links: copies into buffers of known size are checked (level 3 would call a function in hot
# loops), stacks guarded, tables of addresses read-only once the module is loaded, and no stack is executable.
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


class Build(build_ext):
    """Adds the compiler's flags: those that a shared object compiles and links with."""

    def build_extensions(self):
        kind = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        compile_args, link_args = self.find_openmp(OPENMP[kind])
        flags = FLAGS[kind] + (GCC_FLAGS if self.links(GCC_PROBE, GCC_FLAGS, []) else [])
        if kind == "unix" and "-g" not in os.environ.get("CFLAGS", ""):
            flags.append("-g0")  # else Python's own flags have -g: four fifths of the file
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
                # As the module is linked: on macOS, LDFLAGS reaches shared objects only.
                self.compiler.link_shared_object(objects, str(Path(folder, "probe.so")), extra_postargs=link_args)
            except Exception:  # each compiler class has errors of its own
                return False
        return True


setup(
    ext_modules=cythonize(
        Extension(
            "fastkl._kernels",
            ["fastkl/_kernels.pyx", *sorted(glob("fastkl/_core/*.c"))],
            depends=[*glob("fastkl/_core/*.h"), *glob("fastkl/include/*.h")],
            include_dirs=["fastkl", numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
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
    cmdclass={"build_ext": Build},
)
