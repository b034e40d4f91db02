#!/usr/bin/env bash
# The tests on processors older than this one: a Nehalem, which has no AVX, and a Haswell, which has no AVX-512. An instruction
# that they lack ends the process; each has to choose the tier that is right for it.
#
#   tests/hardening/emulated.sh                  both processors, what is listed below: half an hour
#   tests/hardening/emulated.sh all              both, the whole suite: some hours
#   tests/hardening/emulated.sh nehalem          one of them; `nehalem all`, `haswell`, `haswell all` likewise
#
# Needs x86-64, qemu-x86_64 (Debian: qemu-user), a C compiler, and an active environment with fastkl and the test extra.
#
# The list has every function of a tier, every dtype and layout, and threads. It leaves out what takes long in an emulator and
# meets no other instruction: the values against many digits (mpmath's time), files and other libraries' containers. Tests
# that start other processes say nothing here, for those run without the emulator.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

files=(tests/test_{edges,labels,compare,properties,logits,threads,arrays}.py)
# One takes 100 repeats; the others have rows so wide that the emulator takes minutes for each.
slow="one_digest or every_number_of_threads or same_bits_for_one_row or bad_row or wide or many_entries or every_block"
slow+=" or torch or scipy or chunks_of_masks or any_rows_by_definition"
processors=(nehalem haswell)
while [ $# -gt 0 ]; do
    case $1 in
    all) files=(tests) slow=from_source ;;
    nehalem | haswell) processors=("$1") ;;
    *) sed -n '2,/^$/p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
    esac
    shift
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=$work
unset FASTKL_SIMD
python=$(command -v python)

# What follows in an emulator of processor $1, without what that says it cannot do.
on() {
    local cpu=$1
    shift
    qemu-x86_64 -cpu "$cpu" "$@" 2> >(grep -v "TCG doesn't support requested feature" >&2)
}

# Is an instruction that the processor $1 lacks, on vectors $2, the end of a process there?
lacks() {
    echo "int main(void) { __asm__ volatile(\"vpaddd %$2, %$2, %$2\"); return 0; }" | cc -x c - -o "$work/lacks"
    local code=0
    (on "$1" "$work/lacks") 2>/dev/null || code=$?
    [ $code = 132 ] || { echo "an instruction with $2 on $1 ended with $code, not SIGILL: this emulator tells nothing" >&2 && exit 1; }
}

check() {
    local cpu=$1 vectors=$2 tiers=$3
    lacks "$cpu" "$vectors"
    on "$cpu" "$python" -I -c "
import fastkl
info = fastkl.build_info()
print('$cpu:', info)
assert info['simd_available'] == '$tiers'.split() and info['simd'] == '${tiers%% *}'"
    on "$cpu" "$python" "$(command -v pytest)" -q -p no:cacheprovider "${files[@]}" -k "not ($slow)"
}

for processor in "${processors[@]}"; do
    case $processor in
    nehalem) check Nehalem ymm0 baseline ;;
    haswell) check Haswell zmm0 "avx2 baseline" ;;
    esac
done
