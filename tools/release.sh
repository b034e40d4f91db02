#!/usr/bin/env bash
# Builds the sdist, and from it a wheel, as a release has them: their bytes depend on the sources and the tools alone, not on
# the umask, nor on the owner and the age of files. (setuptools heeds SOURCE_DATE_EPOCH in wheels, but not in sdists.)
#
#   tools/release.sh FOLDER
#
# The time of everything in them is SOURCE_DATE_EPOCH, by default that of the last commit. FASTKL_ABI3=1 is heeded.
# Needs GNU tar, a C compiler, a package index, and an active environment with `build`.
set -euo pipefail
umask 022
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH
mkdir -p "$1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python -m build --quiet --sdist --outdir "$work"
archive=("$work"/*.tar.gz)
name=$(basename "${archive[0]}" .tar.gz)
tar -xzf "${archive[0]}" -C "$work"
tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+rwX,go=rX -cf - "$name" |
    gzip -n -9 >"$1/$name.tar.gz"
python -m pip wheel --quiet --no-deps --wheel-dir "$1" "$1/$name.tar.gz"
