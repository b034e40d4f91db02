#!/usr/bin/env bash
# The module, compiled for a tool that watches memory or threads, under tests. First a fault is planted in a copy, of the kind
# that the tool is for, and has to be found: what it does not say of fastkl then means something.
#
#   tools/sanitizers.sh address                   AddressSanitizer and UndefinedBehaviorSanitizer; GCC; all tests
#   tools/sanitizers.sh threads                   ThreadSanitizer; clang and LLVM's OpenMP, which archer explains to it
#   tools/sanitizers.sh memcheck                  valgrind; the baseline tier, because it has no AVX-512
#   tools/sanitizers.sh address tests/test_x.py   these tests instead, with any of pytest's options
#
# Needs Linux on x86-64, an active environment with NumPy, Cython and the test extra, and Debian's gcc; clang, libomp-dev,
# libclang-rt-14-dev (those of one version) and a Python with a shared library; or valgrind. Works in a copy of what git has
# staged or committed. Compiled at -O1, where the checks of each entry leave the compiler something to finish.
set -euo pipefail
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1

root=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
kind=${1:-}
shift || true
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$(command -v python)
program=("$python") # what the tool watches
unset FASTKL_SIMD
without=from_source # tests that say nothing here, as pytest's -k has it
# Every block comes from malloc and has an end of its own: Python's own allocator would hand out parts of large ones.
environment=(PYTHONMALLOC=malloc "HYPOTHESIS_STORAGE_DIRECTORY=$work")
fail() { echo "failed: $*" >&2 && exit 1; }
say() { printf '\n==> [%ds] %s\n' "$SECONDS" "$*"; }

case $kind in
address)
    compiler=gcc flags=("-fsanitize=address,undefined,float-cast-overflow" -fno-sanitize-recover=all)
    # Not use after return: GCC 12 aligns the frames that it moves to the heap to 32 bytes, and a store of 64 crashes there.
    # Not leaks: Python leaves memory behind when it ends.
    environment+=("LD_PRELOAD=$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
        ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1)
    # Whole vectors where the row ends within one.
    fault=(_core/pass.inc.h 's|&q_now, count / LANES, c)|\&q_now, count / LANES + 1, c)|'
        fastkl/_core/tier_baseline.c 'AddressSanitizer: .*overflow')
    tests=(tests) calls=(3000)
    # It needs memory of its own, and this is no release's build.
    without+=" or test_damaged_files or too_wide_for_memory or more_than_a_megabyte or extension_is_hardened"
    ;;
threads)
    compiler=clang flags=(-fsanitize=thread)
    # Only what clang compiled here is watched, not libomp, NumPy or Python; their locks count all the same.
    archer=$(clang -print-resource-dir)/../../libarcher.so
    [ -e "$archer" ] || fail "there is no $archer: Debian's libomp-dev of clang's version has it"
    environment+=("OMP_TOOL_LIBRARIES=$archer" TSAN_OPTIONS=ignore_noninstrumented_modules=1:exitcode=66)
    # All threads write down their invalid rows in one place.
    fault=(_blocks.pxi 's|&call.invalid\[thread\]|\&call.invalid[0]|' fastkl/_kernels.c 'ThreadSanitizer: data race')
    tests=(tests/test_threads.py tests/test_process.py tests/test_forks.py) calls=(200 4)
    # A child forked by a process with threads may start none under it, and its own thread would be counted.
    without+=" or forked or small_work or more_threads or no_thread_is_started"
    ;;
memcheck)
    compiler=gcc flags=()
    program=(valgrind --quiet --error-exitcode=66 --suppressions=tools/valgrind.supp "$python")
    environment+=(FASTKL_SIMD=baseline)
    # Sums that start from what the stack held.
    fault=(_core/pass.inc.h 's|^    NAME(clear)(&lanes);$||' fastkl/_core/tier_baseline.c 'depends on uninitialised value')
    tests=() calls=(2000)
    ;;
*)
    sed -n '2,/^set/{/^set/d;s/^# \?//;p}' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
[ $# = 0 ] || tests=("$@")
mapfile -t includes < <("$python" -c 'import numpy, sysconfig
print("-I" + sysconfig.get_path("include"), "-I" + numpy.get_include(), sep="\n")')

# Compiles sources of the copy in folder $1 with setup.py's directives and flags, and links its module.
build() {
    local source
    cd "$1"
    for source in "${@:2}"; do
        [ "$source" != fastkl/_kernels.c ] ||
            "$python" -m cython -3 -X boundscheck=False,wraparound=False,cdivision=True,initializedcheck=False \
                -X freethreading_compatible=True fastkl/_kernels.pyx
        "$compiler" -O1 -g1 -fno-omit-frame-pointer "${flags[@]}" -w -fPIC \
            -std=c11 -fno-math-errno -fno-trapping-math -ffp-contract=off -fvisibility=hidden -fopenmp \
            -DNPY_NO_DEPRECATED_API=NPY_2_0_API_VERSION -Ifastkl "${includes[@]}" -c "$source" -o "$source.o"
    done
    "$compiler" -shared -fopenmp "${flags[@]}" fastkl/{_core/,}*.o -o fastkl/_kernels.so
    cd "$root"
}

# Python in folder $1 as the tool watches it, with the arguments that follow.
watched() {
    (cd "$1" && env "${environment[@]}" PYTHONPATH="$1${packages:+:$packages}" "${program[@]}" "${@:2}")
}

say "compiling with $("$compiler" --version | head -n 1): ${flags[*]}"
cd "$root"
git checkout-index --all --prefix="$work/sound/"
build "$work/sound" fastkl/_core/*.c fastkl/_kernels.c
if [ "$kind" = threads ]; then
    # ThreadSanitizer has to be there before any other library: in the program, where its parts are no other's.
    read -r library version home packages < <("$python" -c 'import sys, sysconfig as s
print(s.get_config_var("LIBDIR"), s.get_config_var("LDVERSION"), sys.base_prefix, s.get_path("purelib"))')
    printf '#include <Python.h>\nint main(int count, char **words) { return Py_BytesMain(count, words); }\n' |
        clang -fsanitize=thread "${includes[@]}" -xc - -L"$library" -Wl,-rpath,"$library" -l"python$version" -o "$work/python"
    program=("$work/python")
    environment+=("PYTHONHOME=$home")
fi

say "a planted fault: ${fault[0]}, ${fault[1]}"
cp -r "$work/sound" "$work/planted"
sed -i "${fault[1]}" "$work/planted/fastkl/${fault[0]}"
! cmp -s {"$work/sound","$work/planted"}/"fastkl/${fault[0]}" || fail "the fault is not in place: fastkl/${fault[0]} has changed"
build "$work/planted" "${fault[2]}"
cat >"$work/call.py" <<'END'
from threading import Thread
import numpy as np
import fastkl
from fastkl import _kernels

_kernels.use_tier("baseline")
p = np.ones((1, 1001))  # too wide for a group, and not a whole number of vectors
fastkl.kl_divergence(p, p.copy(), normalize=True)
rows = np.full((100_000, 50), -1.0)
# Not the main thread, which meets the others every 30 ms to poll signals: on a busy machine they may not have begun by then.
caller = Thread(target=lambda: [fastkl.entropy(rows, normalize=True, threads=2, invalid="nan") for _ in range(100)])
caller.start()
caller.join()
END
! watched "$work/planted" "$work/call.py" >"$work/planted.txt" 2>&1 || fail "nothing is said of the planted fault"
grep -m 1 -E "${fault[3]}" "$work/planted.txt" || fail "not what was planted: $(cat "$work/planted.txt")"
watched "$work/sound" "$work/call.py" || fail "the same without the fault"

say "calls on memory that ends where the operands do"
watched "$work/sound" tools/sweep.py "${calls[@]}"
if [ ${#tests[@]} -gt 0 ]; then
    say "pytest ${tests[*]}"
    # What the tool says is not pytest's to keep: it ends the process.
    watched "$work/sound" -m pytest -q -p no:cacheprovider --capture=sys -k "not ($without)" "${tests[@]}"
fi
say "nothing found"
