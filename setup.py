"""Builds fastkl._kernels: one Cython module over plain C. The rest of the configuration is in pyproject.toml.

FASTKL_REQUIRE_OPENMP=1 makes a build without OpenMP an error; FASTKL_NO_OPENMP=1 makes a build without it. FASTKL_ABI3=1
makes one module for every CPython from 3.11 on, as in releases; free-threaded ones have no such interface, and ignore it.
"""

import os
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# No errno and no traps, so that the maths vectorises; contraction only where the source says fma. Never -ffast-math.
FLAGS = {
    "unix": ["-O3", "-std=c11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"],
    "msvc": ["/O2", "/std:c11", "/fp:precise"],
}
# Compile and link arguments for OpenMP: of Linux, then of Apple's clang with a libomp of its own.
OPENMP = {
    "unix": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],
    "msvc": [(["/openmp"], [])],
}
OPENMP_PROBE = "#include <omp.h>\nint probe(void) { return omp_get_max_threads(); }\n"
# What these arguments need to compile and link: a compiler that is GCC, or a copy into a buffer of known size.
GCC = "#if !defined(__GNUC__) || defined(__clang__)\n#error\n#endif\nint probe(void) { return 0; }\n"
COPY = "#include <string.h>\nint probe(const char *text) { char copy[9]; strcpy(copy, text); return copy[0]; }\n"
OPTIONAL = [
    # GCC does not schedule instructions before it allocates registers by default: 5 % of speed in AVX-512, 15 % in AVX2.
    (GCC, ["-fschedule-insns", "-fsched-pressure"], []),
    # Loops and functions are not copied for what does not change in them, or for first rounds: 5 % of the code.
    (GCC, ["-fno-unswitch-loops", "-fno-split-loops", "-fno-split-paths", "-fno-peel-loops", "-fno-ipa-cp-clone"], []),
    # Copies into buffers of known size are checked (level 3 would call a function in hot loops), stacks are guarded, tables
    # of addresses are read-only once the module is loaded, and no stack is executable.
    (COPY, ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"], []),
    (COPY, ["-fstack-protector-strong"], []),
    (COPY, [], ["-Wl,-z,relro,-z,now"]),
    (COPY, [], ["-Wl,-z,noexecstack"]),
]
# The same for files where size matters more: copies of loops for other numbers of rounds are a quarter of a tier.
# The baseline is that of CPUs without AVX2; in AVX2, loops that are written out only if they are short are 2 % faster on
# average, in AVX-512 slower; Cython's code runs once a call.
SMALL = {
    "tier_baseline.c": [(GCC, ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-gcse"], [])],
    "tier_avx2.c": [(GCC, ["--param=max-completely-peeled-insns=60"], [])],
    "_kernels.c": [(GCC, ["-Os"], [])],
}
ABI3 = os.environ.get("FASTKL_ABI3") == "1" and not sysconfig.get_config_var("Py_GIL_DISABLED")


class Build(build_ext):
    """Adds those flags of the compiler with which a shared object compiles and links."""

    def build_extensions(self):
        kind = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        arguments = [(FLAGS[kind], []), self.find_openmp(OPENMP[kind])]
        if kind == "unix":
            arguments += [args for probe, *args in OPTIONAL if self.links(probe, *args)]
            if ABI3 and self.links(COPY, [], ["-Wl,-s"]):
                arguments.append(([], ["-Wl,-s"]))  # a release has no names of functions that are not exported
            if "-g" not in os.environ.get("CFLAGS", ""):
                arguments.append((["-g0"], []))  # overrides -g in Python's own flags: four fifths of the file
        (kernels,) = self.extensions
        for compile_args, link_args in arguments:
            kernels.extra_compile_args += compile_args
            kernels.extra_link_args += link_args
        small = {
            name: [flag for probe, flags, _ in options if kind == "unix" and self.links(probe, flags, []) for flag in flags]
            for name, options in SMALL.items()
        }
        self.compiler.compile = self.side_by_side(self.compiler.compile, small)
        super().build_extensions()

    @staticmethod
    def side_by_side(compile_in_order, small):
        """The same with a compiler for each processor: the file of a tier takes half a minute."""

        def compile_all(sources, extra_postargs=(), **keywords):
            def compile_one(source):
                flags = [*extra_postargs, *small.get(Path(source).name, ())]
                return compile_in_order([source], extra_postargs=flags, **keywords)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [one for some in pool.map(compile_one, sources) for one in some]

        return compile_all

    def find_openmp(self, candidates):
        if os.environ.get("FASTKL_NO_OPENMP") != "1":
            for option in candidates:
                if self.links(OPENMP_PROBE, *option):
                    return option
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


# The interface of NumPy 2.0, whichever NumPy 2 the module is compiled with.
macros = [(name, "NPY_2_0_API_VERSION") for name in ("NPY_TARGET_VERSION", "NPY_NO_DEPRECATED_API")]
kernels = Extension(
    "fastkl._kernels",
    ["fastkl/_kernels.pyx", *sorted(glob("fastkl/_core/*.c"))],
    depends=[*glob("fastkl/_core/*.h"), *glob("fastkl/include/*.h")],
    include_dirs=["fastkl", numpy.get_include()],
    libraries=["dl"] * sys.platform.startswith("linux"),  # dladdr, before glibc 2.34
    define_macros=[*macros, ("Py_LIMITED_API", "0x030B0000")] if ABI3 else macros,
    py_limited_api=ABI3,
)
directives = {"language_level": 3, "freethreading_compatible": True, "cdivision": True}
directives |= dict.fromkeys(["boundscheck", "wraparound", "initializedcheck"], False)
options = {"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {}
setup(ext_modules=cythonize(kernels, compiler_directives=directives), cmdclass={"build_ext": Build}, options=options)
