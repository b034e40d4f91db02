#!/usr/bin/env bash
# libFuzzer on the row kernels: fuzz_rows.c says what is called and what must hold. Two runs over one corpus: the first with the
# sanitizers of addresses and undefined behaviour, its coverage that of the kernels, which clang then does not vectorise; the
# second with the kernels as a build has them. Whatever is found ends the run, with its input in base64 and another code than 0.
#
#   tests/hardening/fuzz_rows.sh                      10^7 executions with the sanitizers, 10^8 without
#   tests/hardening/fuzz_rows.sh 1000000 [SECONDS]    a tenth of so many with them, so many without, each no longer than SECONDS
#   tests/hardening/fuzz_rows.sh control              a kernel is broken in a copy: succeeds if the fuzzer finds it
#
# Needs clang with its runtime libraries (Debian: clang, libclang-rt-14-dev or as new as that clang).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/corpus"

# As in setup.py.
flags=(-std=c11 -fno-math-errno -fno-trapping-math -ffp-contract=off)
tiers=(tier_baseline tier_avx2 tier_avx512)
rest=(careful careful_logits dispatch)

# Compiles the core in folder $1 as $2, every file with clang and the options that follow.
build_checked() {
    local core=$1 target=$2 source
    shift 2
    local -a sources=(tests/hardening/fuzz_rows.c)
    for source in "${tiers[@]}" "${rest[@]}"; do
        sources+=("$core/$source.c")
    done
    clang "${flags[@]}" -O1 -g1 -Wno-pass-failed -fno-sanitize-recover=all "$@" -I"$core" "${sources[@]}" -lm -o "$target"
}

# The same with the tiers as a build has them, by $CC or cc. What they call is what tells the fuzzer where it comes.
build_fast() {
    local core=$1 target=$2 source
    local -a objects=() more=()
    ${CC:-cc} --version | grep -q clang || more=(-fschedule-insns -fsched-pressure)
    for source in "${tiers[@]}"; do
        ${CC:-cc} "${flags[@]}" -O3 "${more[@]}" -c "$core/$source.c" -o "$target.$source.o"
        objects+=("$target.$source.o")
    done
    for source in "${rest[@]/#/$core/}" tests/hardening/fuzz_rows; do
        clang "${flags[@]}" -O2 -g1 -fsanitize-coverage=inline-8bit-counters,pc-table -I"$core" -c "$source.c" -o "$target.$(basename "$source").o"
        objects+=("$target.$(basename "$source").o")
    done
    clang -fsanitize=fuzzer "${objects[@]}" -lm -o "$target"
}

# So many executions of $1.
run() {
    local target=$1 runs=$2 seconds=$3 code=0
    "$target" -runs="$runs" -max_total_time="$seconds" -max_len=160 -len_control=0 -entropic=0 -keep_seed=1 -reload=0 \
        -print_funcs=0 -artifact_prefix="$work/found-" "$work/corpus" >"$work/log" 2>&1 || code=$?
    grep -E '^#[0-9]+|^Done' "$work/log" | tail -n 2
    [ $code = 0 ] && return
    grep -vE '^#[0-9]+' "$work/log" | tail -n 60
    for input in "$work"/found-*; do
        echo "$(basename "$input"): $(base64 -w0 "$input")"
    done
    return 1
}

if [ "${1-}" = control ]; then
    # Divergences of one binade are a millionth too large, on every tier.
    cp -r fastkl/_core "$work/core"
    sed -i 's/^FASTKL_INLINE double asked(int root, double value) {/& if (value > 0.25 \&\& value < 0.5) value *= 1 + 0x1p-20;/' "$work/core/tier.inc.h"
    if cmp -s fastkl/_core/tier.inc.h "$work/core/tier.inc.h"; then
        echo "nothing was broken" >&2
        exit 2
    fi
    build_fast "$work/core" "$work/broken"
    if run "$work/broken" 10000000 300; then
        echo "a broken kernel went unnoticed" >&2
        exit 1
    fi
    echo "the broken kernel was found"
    exit 0
fi

runs=${1:-100000000} seconds=${2:-0}
build_checked fastkl/_core "$work/checked" -fsanitize=fuzzer,address,undefined
echo "with the sanitizers:"
run "$work/checked" $((runs / 10)) "$seconds"
build_fast fastkl/_core "$work/fast"
echo "as built:"
run "$work/fast" "$runs" "$seconds"
