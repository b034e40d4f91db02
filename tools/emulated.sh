#!/usr/bin/env bash
# The tests on processors older than this one: a Nehalem, which has no AVX, and a Haswell, which has no AVX-512. An instruction
# that they lack ends the process; each has to choose the tier that is right for it.
#
#   tools/emulated.sh                            both processors, the files below: half an hour
#   tools/emulated.sh tests/test_edges.py ...    these tests instead, with any of pytest's options
#
# Needs x86-64, qemu-x86_64 (Debian: qemu-user), a C compiler, and an active environment with fastkl and the test extra.
#
# The files have every function of a tier, every dtype and layout, and threads. The rest takes long in an emulator and meets no
# other instruction: values against many digits, files and other libraries' containers. Tests that start other processes say
# nothing here, for those run without the emulator.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# != 0 ] || set -- tests/test_{edges,labels,compare,properties,logits,threads,arrays}.py \
    -k 'not one_digest and not wide and not torch and not scipy' # so wide rows, and a hundred repeats, take hours
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=$work
unset FASTKL_SIMD

# What follows in an emulator of processor $1, without what that says it cannot do.
on() { qemu-x86_64 -cpu "$1" "${@:2}" 2> >(grep -v "TCG doesn't support requested feature" >&2); }

# Runs the tests on processor $1, which has no vectors $2 and the tiers $3.
check() {
    local cpu=$1 vectors=$2 tiers=$3 code=0
    shift 3
    echo "int main(void) { __asm__ volatile(\"vpaddd %$vectors, %$vectors, %$vectors\"); return 0; }" | cc -x c - -o "$work/lacks"
    (on "$cpu" "$work/lacks") 2>/dev/null || code=$?
    [ $code = 132 ] || { echo "an instruction with $vectors on $cpu ended with $code, not SIGILL: this emulator tells nothing" >&2 && exit 1; }
    on "$cpu" "$(command -v python)" -P -c "
import fastkl
info = fastkl.build_info()
print('$cpu:', info)
assert info['simd_available'] == '$tiers'.split() and info['simd'] == '${tiers%% *}'"
    on "$cpu" "$(command -v python)" -P -m pytest -q -p no:cacheprovider "$@"
}

check Nehalem ymm0 baseline "$@"
check Haswell zmm0 "avx2 baseline" "$@"
