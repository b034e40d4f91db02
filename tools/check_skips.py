"""Checks that every test that pytest has skipped had a reason to be, and prints how many tests ran.

    python tools/check_skips.py FOLDER

The folder has pytest's reports, `--junit-xml`. A test may be skipped because its platform lacks something, and,
except in the runs with all peers, because a library is missing. Tests that are expected to fail count as skipped.
"""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

PEERS = """scipy sklearn torch jax pandas polars pyarrow xarray dask distributed array_api_strict ml_dtypes zarr tqdm numba
    safetensors Cython setuptools duckdb pynndescent umap matplotlib"""
PLATFORM = [
    "affinity can't be set here",
    "reads an ELF file with nm",
    "counts threads in /proc",
    "long double is double here",
    "does not know this platform's <fenv.h>",
    "files have no holes here",
    "Windows has no such",
    *[f"could not import '{module}'" for module in ("fcntl", "termios", "resource")],
]
# Why a test may be skipped besides, in a report of that name, and in every other report.
ALLOWED = {"peers": ["FASTKL_SITE names no built site"], "benchmarks": ["does not compute"], "site": []}
NO_PEER = [f"could not import '{name}{end}" for name in PEERS.split() for end in ".'"]


def main(folder: Path) -> str | None:
    """Print how many tests ran; return what is wrong."""
    platform = [] if sys.platform == "linux" else PLATFORM
    total: Counter[str] = Counter()
    wrong = []
    for report in sorted(folder.glob("*.xml")):
        ran: Counter[str] = Counter()
        for case in ElementTree.parse(report).iter("testcase"):
            failed = [*case.iter("failure"), *case.iter("error")]
            skipped = [f"{skip.get('message')}: {skip.text}" for skip in case.iter("skipped")]
            ran["failed" if failed else "skipped" if skipped else "passed"] += 1
            known = platform + ALLOWED.get(report.stem, NO_PEER)
            unknown = [why for why in skipped if not any(reason in why for reason in known)]
            wrong += [f"{report.stem}: {case.get('name')}: {why}" for why in unknown]
        if not ran["passed"]:
            wrong.append(f"{report.stem}: no test passed")
        print(f"{report.stem}: {ran['passed']} passed, {ran['failed']} failed, {ran['skipped']} skipped")
        total += ran
    print(f"total: {total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return "\n".join(["skipped without a known reason, or nothing ran:", *wrong]) if wrong or not total else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
