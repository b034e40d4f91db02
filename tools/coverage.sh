#!/usr/bin/env bash
# Prints how much of fastkl the default test run covers: of its Python, lines and branches, by coverage.py; of its C core,
# lines, by gcov. A line of a header that several tiers include counts as covered if one of them runs it.
#
#   tools/coverage.sh [ARGUMENTS OF PYTEST]
#
# Needs GCC, git, and an active environment with NumPy, Cython, setuptools, the test extra, coverage and gcovr.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git -C "$(dirname "${BASH_SOURCE[0]}")/.." checkout-index --all --prefix="$work/"
cd "$work"
sed -i 's/"-O3"/"-O1"/' setup.py # less of a line's code is part of another's
CC=gcc CFLAGS=--coverage LDFLAGS=--coverage python setup.py -q build_ext --inplace
printf '[run]\nbranch = True\nparallel = True\nsource = fastkl\npatch = subprocess\n' >.coveragerc
# Without pytest-xdist, whose processes end without writing gcov's counts.
python -m coverage run -m pytest -q -p no:xdist -p no:cacheprovider "$@" || echo "some tests fail while they are measured"
python -m coverage combine --quiet
python -m coverage report --skip-covered
gcovr --root . --object-directory build --filter fastkl/_core/ --gcov-ignore-parse-errors all
