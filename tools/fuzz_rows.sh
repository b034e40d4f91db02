#!/usr/bin/env bash
# Runs libFuzzer on the row kernels; fuzz_rows.c says what is called and what must hold. The first runs have the sanitizers of
# addresses and of undefined behaviour, and coverage of the kernels, which clang then does not vectorise; the second have the
# kernels as a build has them. Each is ten runs with different seeds that start without inputs, and none takes longer than
# SECONDS: which inputs a run finds first decides what it finds later. A failure ends all, with its input in base64.
#
#   tools/fuzz_rows.sh                      10^6 executions with the sanitizers, 10^8 without: half an hour of two processors
#   tools/fuzz_rows.sh 1000000 [SECONDS]    a hundredth of that with the sanitizers, all of it without
#   tools/fuzz_rows.sh control              a kernel is broken in a copy: succeeds if the fuzzer finds it
#
# Needs x86-64 and clang with its runtime libraries (Debian: clang, libclang-rt-14-dev of clang's own version).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags=(-std=c11 -fno-math-errno -fno-trapping-math -ffp-contract=off) # setup.py's
tiers=(tier_baseline tier_avx2 tier_avx512)
rest=(fallback_rows fallback_logits tables)

# Compiles the core in folder $1 as $2, every file with clang and the sanitizers.
build_checked() {
    local sources=("${tiers[@]/#/$1/}" "${rest[@]/#/$1/}" tools/fuzz_rows)
    clang "${flags[@]}" -O1 -g1 -Wno-pass-failed -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
        -I"$1" "${sources[@]/%/.c}" -lm -o "$2"
}

# The same with the tiers as a build has them, by $CC or cc. The fuzzer has coverage of the functions that they call.
build_fast() {
    local source more=()
    ${CC:-cc} --version | grep -q clang || more=(-fschedule-insns -fsched-pressure)
    for source in "${tiers[@]/#/$1/}"; do
        ${CC:-cc} "${flags[@]}" -O3 "${more[@]}" -c "$source.c" -o "$2.$(basename "$source").o"
    done
    for source in "${rest[@]/#/$1/}" tools/fuzz_rows; do
        clang "${flags[@]}" -O2 -g1 -fsanitize-coverage=inline-8bit-counters,pc-table -I"$1" -c "$source.c" \
            -o "$2.$(basename "$source").o"
    done
    clang -fsanitize=fuzzer "$2".*.o -lm -o "$2"
}

# A run of seed $1 without inputs: $3 executions of $2 in at most $4 seconds. Its log's last lines have its failure.
one() {
    local seed=$1 target=$2 runs=$3 seconds=$4 code=0
    shift 4
    mkdir "$target.corpus$seed"
    "$target" -seed="$seed" -runs="$runs" -max_total_time="$seconds" -max_len=160 -len_control=0 -entropic=0 -keep_seed=1 \
        -reload=0 -print_funcs=0 -artifact_prefix="$target.found$seed-" "$@" "$target.corpus$seed" >"$target.log$seed" 2>&1 || code=$?
    echo "seed $seed: $(grep -aE '^Done|^#[0-9]+' "$target.log$seed" | tail -n 1)"
    [ $code != 0 ] || return 0
    grep -avE '^#[0-9]+' "$target.log$seed" | tail -n 60
    for input in "$target.found$seed"-*; do
        echo "$(basename "$input"): $(base64 -w0 "$input")"
    done
    return 255 # xargs then starts no other run
}
export -f one

# $2 executions of $1 as ten runs, as many at a time as there are processors, with the options of libFuzzer that follow.
run() {
    local target=$1 runs=$2 seconds=$3
    shift 3
    seq 10 | xargs -I{} -P"$(nproc)" bash -c 'one "$@"' one {} "$target" $((runs / 10)) "$seconds" "$@"
}

if [ "${1-}" = control ]; then
    # Values of one binade are a millionth too large, on every tier.
    cp -r fastkl/{_core,include} "$work"
    sed -i 's/^        value\[i\] = row.value;$/& value[i] *= row.value > 0.25 \&\& row.value < 0.5 ? 1 + 0x1p-20 : 1;/' "$work/_core/rows.inc.h"
    ! cmp -s {fastkl,"$work"}/_core/rows.inc.h || { echo "nothing was broken" >&2 && exit 2; }
    build_fast "$work/_core" "$work/broken"
    ! run "$work/broken" 10000000 300 || { echo "a broken kernel went unnoticed" >&2 && exit 1; }
    echo "the broken kernel was found"
    exit 0
fi

runs=${1:-100000000} seconds=${2:-0}
build_checked fastkl/_core "$work/checked"
echo "with the sanitizers:"
run "$work/checked" $((runs / 100)) "$seconds"
build_fast fastkl/_core "$work/fast"
echo "as built:"
# Coverage does not count how often code ran: the fuzzer would otherwise prefer long rows, which take long.
run "$work/fast" "$runs" "$seconds" -use_counters=0
