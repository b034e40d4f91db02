#!/usr/bin/env bash
# Builds sdist and wheel of what git has staged or committed twice, in folders of other names, lengths and ages, with another
# umask, locale and time zone, and compares them. Prints the SHA-256 of each file; fails if the two builds differ.
#
# The time of everything in them is that of the last commit, as in a release: SOURCE_DATE_EPOCH. FASTKL_ABI3=1 is heeded.
# Needs git, python3 with venv, a C compiler and a package index.
set -euo pipefail

root=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct)
export SOURCE_DATE_EPOCH HOME=$work PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet build

# Builds in folder $1, of files of the time $3; the results end up in $2.
build() {
    mkdir -p "$1"
    git -C "$root" checkout-index --all --prefix="$1/"
    find "$1" -type f -exec touch -d "$3" {} +
    (cd "$1" && PATH=$work/tools/bin:$PATH bash tools/release.sh "$2")
    (cd "$2" && sha256sum -- *) >"$2.txt"
}

build "$work/a" "$work/first" now
(
    umask 077
    export TZ=Asia/Kathmandu LC_ALL=C PYTHONHASHSEED=7
    build "$work/another folder/further down" "$work/second" 2001-02-03
)
cat "$work/first.txt"
diff "$work"/{first,second}.txt || { echo "the two builds differ" >&2 && exit 1; }
