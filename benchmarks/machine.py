"""What the figures were measured on: the CPU's name and features, its clock, and every version. Knows nothing of cases."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import reading
from numpy._core._multiarray_umath import __cpu_features__  # np.show_runtime prints it
from peers import PEERS

import fastkl

# Virtual machines hide the model's name ("AMD EPYC"), but not the family and the model. By the manufacturer and the family,
# the first model of each and what it is, from Linux's arch/x86/kernel/cpu/amd.c and arch/x86/include/asm/intel-family.h.
KINDS = {
    ("AuthenticAMD", 23): {0x00: "Zen", 0x30: "Zen 2"},
    ("AuthenticAMD", 25): {0x00: "Zen 3", 0x10: "Zen 4", 0x20: "Zen 3", 0x60: "Zen 4"},
    ("AuthenticAMD", 26): {0x00: "Zen 5"},
    ("GenuineIntel", 6): {
        0x55: "Skylake or Cascade Lake",
        0x6A: "Ice Lake",
        0x8F: "Sapphire Rapids",
        0xAD: "Granite Rapids",
        0xCF: "Emerald Rapids",
    },
}
ADDITIONS = 30_000_000


def _facts() -> dict[str, str]:
    """Return what the system says of the first processor."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def cpu() -> str:
    """Return the CPU's name, what kind it is, and the vector instructions that it has."""
    facts = _facts()
    name = facts.get("model name") or platform.processor() or platform.machine()
    if facts.get("cpu family", "").isdigit():
        family, model = int(facts["cpu family"]), int(facts["model"])
        kinds = KINDS.get((facts["vendor_id"], family), {})
        kind = next((kinds[first] for first in sorted(kinds, reverse=True) if first <= model), "unknown")
        name += f" (family {family}, model {model}: {kind})"
    wide = [
        feature
        for feature, there in __cpu_features__.items()
        if there and feature.startswith(("AVX", "FMA", "NEON", "SVE"))
    ]
    return f"{name} with {' '.join(wide)}"


@cache
def clock() -> float | None:
    """Return the cycles a second, at the speed of a long chain of additions of which each takes one; None if unknown."""
    times = [reading.chain(ADDITIONS) for _ in range(5)]
    known = [seconds for seconds in times if seconds]
    return ADDITIONS / min(known) if known else None


def cycles(seconds: float, entries: int, threads: int = 1) -> float | None:
    """Return the cycles of all threads for each entry."""
    return seconds * threads * hertz / entries if (hertz := clock()) else None


@cache
def machine() -> str:
    """Describe the machine, as it was at the first call: torch changes OpenMP's number of threads."""
    info = fastkl.build_info()
    versions = dict.fromkeys(f"{peer.package} {peer.version}" for peer in PEERS if peer.version)
    hertz = clock()
    return (
        f"{cpu()}, {f'{hertz / 1e9:.2f} GHz' if hertz else 'clock unknown'}, {info['threads']} threads at most, "
        f"{platform.system()}, {info['compiler']}, tier {info['simd']}; {', '.join(versions)}"
    )
