"""Damages files of a format at random, scores each with the command, and prints the results, in a process of its own.

    python damaged_files.py FORMAT FOLDER COUNT

A line of JSON before each file describes the damage, one after it the result. The last line has the peak memory of the
process. Knows nothing of expected results.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import resource
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastkl.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, WIDTH = 300, 7
EXTREMES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
NUMBERS = ["0", "-1", "1", "3", "4294967296", "9" * 18, "9" * 25, "1e400", "0.5", "null", '"7"', "[]", "{}", "[" * 3000]
WORDS = [
    "float64",
    "<f8",
    "<f4",
    "|O",
    "|V2",
    "bytes",
    "zstd",
    "blosc",
    "gzip",
    "null",
    "pickle",
    "vlen-utf8",
    "array",
    "group",
]


def values() -> Any:
    rows = np.random.default_rng(0).random((ROWS, WIDTH))
    return rows / rows.sum(axis=1, keepdims=True)


def npz(folder: Path) -> list[tuple[Path, str]]:
    np.savez(folder / "stored.npz", x=values(), other=np.arange(5))
    np.savez_compressed(folder / "deflated.npz", x=values().astype("f4"))
    return [(folder / "stored.npz", ":x"), (folder / "deflated.npz", "")]


def parquet(folder: Path) -> list[tuple[Path, str]]:
    import pyarrow as pa
    from pyarrow import parquet as pq

    lists = pa.array(list(values()))
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(values().astype("f4").reshape(-1)), WIDTH)
    key = pa.array([f"row {i}" for i in range(ROWS)])
    options: list[dict[str, Any]] = [
        {"row_group_size": 50, "store_schema": False},
        {"use_dictionary": False, "compression": "none"},
        {"compression": "zstd", "write_page_checksum": True, "data_page_version": "2.0", "data_page_size": 2000},
        {
            "compression": "gzip",
            "use_byte_stream_split": ["p.list.element"],
            "use_dictionary": False,
            "store_schema": False,
        },
    ]
    made = []
    for i, keywords in enumerate(options):
        path = folder / f"{i}.parquet"
        pq.write_table(pa.table({"id": key, "p": fixed if i in (1, 2) else lists}), path, **keywords)
        made.append((path, ":p"))
    return made


def zarr(folder: Path) -> list[tuple[Path, str]]:
    import numcodecs
    import zarr

    new = int(zarr.__version__.split(".")[0]) >= 3
    two: dict[str, Any] = {"zarr_format": 2} if new else {}
    chunks: Any = {"chunks": (64, 4)}
    made = []
    for i, compressor in enumerate([None, numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.Zlib(), numcodecs.LZ4()]):
        path = folder / f"{i}.zarr"
        zarr.create((ROWS, WIDTH), dtype="f8", store=str(path), compressor=compressor, **chunks, **two)[:] = values()
        made.append((path, ""))
    if new:
        blosc = zarr.codecs.BloscCodec()
        for i, keywords in enumerate(({}, {"compressors": None}, {"shards": (128, 8)}, {"compressors": blosc})):
            path = folder / f"new_{i}.zarr"
            group = zarr.open_group(str(path), mode="w")
            group.create_array("x", shape=(ROWS, WIDTH), dtype="f4", **chunks, **keywords)[:] = values()
            made.append((path, ":x"))
    return made


MAKE: dict[str, Callable[[Path], list[tuple[Path, str]]]] = {"npz": npz, "parquet": parquet, "zarr": zarr}


def headers(name: str, data: bytes) -> list[int]:
    """Positions of headers: both ends of an archive, the footer and the first page's header of Parquet."""
    if name.endswith(".npz"):
        return [*range(min(len(data), 180)), *range(max(0, len(data) - 180), len(data))]
    if name.endswith(".parquet"):
        length = int.from_bytes(data[-8:-4], "little")
        return [*(i for start in pages(data) for i in range(start, start + 40)), *range(len(data) - 8 - length, len(data))]
    return list(range(len(data) if name in ("zarr.json", ".zarray") else min(len(data), 32)))


def pages(data: bytes) -> list[int]:
    """The positions of the first pages of the rows' column."""
    from pyarrow import parquet as pq

    with pq.ParquetFile(io.BytesIO(data)) as file:
        groups = [file.metadata.row_group(i).column(1) for i in range(file.metadata.num_row_groups)]
    return [x for group in groups for x in (group.dictionary_page_offset, group.data_page_offset) if x]


def damaged(rng: np.random.Generator, name: str, data: bytes) -> tuple[str, bytes]:
    """A description of the damage, and the damaged data."""
    new, places = bytearray(data), headers(name, data)
    kind = rng.choice(["bits", "bytes", "extreme", "text", "truncated", "other"], p=[0.25, 0.1, 0.25, 0.1, 0.25, 0.05])
    if kind == "text":
        if name not in ("zarr.json", ".zarray"):
            kind = "extreme"
        else:
            words = rng.random() < 0.3
            found = list(re.finditer(rb'(?<=")[^"]+(?=")' if words else rb"-?\b[0-9.]+\b", data))
            match, word = found[rng.integers(len(found))], str(rng.choice(WORDS if words else NUMBERS))
            return f"{word[:9]!r} at {match.start()}", data[: match.start()] + word.encode() + data[match.end() :]
    if kind == "bits":
        at = [(places[rng.integers(len(places))], int(rng.integers(8))) for _ in range(rng.integers(1, 4))]
        for i, bit in at:
            new[i] ^= 1 << bit
        return f"bits {at}", bytes(new)
    if kind == "bytes":
        at = [(places[rng.integers(len(places))], int(rng.integers(256))) for _ in range(rng.integers(1, 9))]
        for i, byte in at:
            new[i] = byte
        return f"bytes {at}", bytes(new)
    if kind == "extreme":
        i, width, number = (
            places[rng.integers(len(places))],
            int(rng.choice([1, 2, 4, 8])),
            EXTREMES[rng.integers(len(EXTREMES))],
        )
        new[i : i + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
        return f"{number} in {width} bytes at {i}", bytes(new)
    if kind == "truncated":
        # White space at the end of metadata does not matter.
        most = len(data.rstrip())
        length = int(rng.integers(most) if rng.random() < 0.5 else max(0, most - 1 - rng.integers(40)))
        return f"truncated to {length} of {len(data)}", data[:length]
    noise = rng.bytes(int(rng.integers(1, 400)))
    ways = {
        "empty": b"",
        "random": noise,
        "random after the beginning": data[:8] + noise,
        "random before the end": noise + data[-8:],
        "random appended": data + noise,
    }
    way = str(rng.choice(list(ways)))
    return way, ways[way]


def score(arguments: list[str]) -> tuple[int, str]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as stderr:
        status = main(["score", *arguments])
    return status, stderr.getvalue()


def peak() -> int:
    """The peak memory of this process in bytes. Except on Linux, it includes that before it became this program."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(form: str, folder: Path, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 34, resource.getrlimit(resource.RLIMIT_AS)[1]))  # protects the machine
    np.save(folder / "q.npy", values()[::-1])
    made = MAKE[form](folder)
    for path, member in made:
        print(json.dumps(["undamaged", str(path), *score([str(path) + member, str(folder / "q.npy")])]))
    out = folder / "out.npy"
    for i in range(count):
        rng = np.random.default_rng(i)
        path, member = made[i % len(made)]
        files = sorted(x for x in path.rglob("*") if x.is_file()) if path.is_dir() else [path]
        weights = np.array([10.0 if file.suffix == ".json" or file.name == ".zarray" else 1.0 for file in files])
        file = files[rng.choice(len(files), p=weights / weights.sum())]
        before = file.read_bytes()
        what, after = damaged(rng, file.name, before)
        print(json.dumps([f"{i}: {file.name}: {what}", str(path)]), flush=True)
        file.write_bytes(after)
        operands = [str(path) + member, *([] if i % 3 else [str(folder / "q.npy")])]
        more = ["--measure", "entropy"] if i % 3 else []
        more += ["--invalid", "nan", "--threads", "1"] + (["--out", str(out)] if i % 4 == 0 else [])
        status, stderr = score([*operands, *more])
        print(json.dumps([after == before, status, stderr]), flush=True)
        file.write_bytes(before)
        for left in folder.glob("out.npy*"):
            left.unlink()
    print(json.dumps(peak()))
    shutil.rmtree(folder)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
