"""Damages files of a format at random, scores each with the command, and prints the results, in a process of its own.

    python -m support.damaged_files FORMAT COUNT

A line of JSON before each file describes the damage, one after it the result. The last line has the peak memory of the
process. Knows nothing of expected results.
"""

import io
import json
import re
import resource
import sys
from functools import partial
from pathlib import Path

import numpy as np

from support.batch_files import FORMATS, ROUNDED, npy, one_tensor, parquet, rows, zarr_array
from support.batch_runs import peak, scored

FORMS = {name: save for name, save in (FORMATS | ROUNDED).items() if name != "parquet folder"} | {
    "parquet plain": partial(parquet, "fixed", use_dictionary=False, compression="none"),
    "parquet pages": partial(parquet, "fixed", write_page_checksum=True, data_page_version="2.0", data_page_size=2000),
    "parquet gzip": partial(parquet, "list", compression="gzip", use_dictionary=False, store_schema=False),
    "parquet split": partial(parquet, "list", use_byte_stream_split=["x.list.element"], use_dictionary=False),
    "zarr raw": partial(zarr_array, (64, 4), compressors=None),
    "zarr blosc": partial(zarr_array, (64, 4), compressors={"name": "blosc", "configuration": {}}),
    "zarr 2 raw": partial(zarr_array, (64, 4), compressors=None, zarr_format=2),
}
for codec in "blosc", "zstd", "zlib", "lz4":
    FORMS[f"zarr 2 {codec}"] = partial(zarr_array, (64, 4), compressors={"id": codec}, zarr_format=2)
EXTREMES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
NUMBERS = ["0", "-1", "1", "3", "4294967296", "9" * 18, "9" * 25, "1e400", "0.5", "null", '"7"', "[]", "{}", "[" * 3000]
WORDS = ["float64", "<f8", "<f4", "|O", "|V2", "bytes", "zstd", "blosc", "gzip", "null", "pickle", "vlen-utf8", "array"]
WORDS += ["group", "F64", "F32", "BF16", "F8_E4M3", "U8", "x", "y", "dtype", "p-1.safetensors", "../p.safetensors"]
METADATA = ("zarr.json", ".zarray", ".safetensors", ".safetensors.index.json")


def headers(name, data):
    """Positions of headers: both ends of an archive, the footer and the first page's header of Parquet."""
    if name.endswith(".npz"):
        return [*range(min(len(data), 180)), *range(max(0, len(data) - 180), len(data))]
    if name.endswith(".parquet"):
        length = int.from_bytes(data[-8:-4], "little")
        return [*(i for start in pages(data) for i in range(start, start + 40)), *range(len(data) - 8 - length, len(data))]
    if name.endswith(".kld"):  # the header, and the first row's numbers
        begin = 20 + 4 * int.from_bytes(data[8:12], "little") * int.from_bytes(data[16:20], "little")
        return [*range(24), *range(begin, begin + 16)]
    if name.endswith(".safetensors"):
        return list(range(8 + int.from_bytes(data[:8], "little")))
    return list(range(len(data) if name.endswith(METADATA) else min(len(data), 32)))


def pages(data):
    """The positions of the first pages of the rows' column."""
    from pyarrow import parquet as pq

    with pq.ParquetFile(io.BytesIO(data)) as file:
        groups = [file.metadata.row_group(i).column(1) for i in range(file.metadata.num_row_groups)]
    return [x for group in groups for x in (group.dictionary_page_offset, group.data_page_offset) if x]


def damaged(rng, name, data):
    """A description of the damage, and the damaged data."""
    new, places = bytearray(data), headers(name, data)
    kind = rng.choice(["bits", "bytes", "extreme", "text", "truncated", "other"], p=[0.25, 0.1, 0.25, 0.1, 0.25, 0.05])
    if kind == "text" and name.endswith(METADATA):
        words = rng.random() < 0.3
        text = data[: places[-1] + 1]
        found = list(re.finditer(rb'(?<=")[^"]+(?=")' if words else rb"-?\b[0-9.]+\b", text))
        match, word = found[rng.integers(len(found))], str(rng.choice(WORDS if words else NUMBERS))
        return f"{word[:9]!r} at {match.start()}", data[: match.start()] + word.encode() + data[match.end() :]
    if kind in ("bits", "bytes"):
        most, flips = (3, 1 << np.arange(8)) if kind == "bits" else (8, np.arange(256))
        at = [(places[rng.integers(len(places))], int(rng.choice(flips))) for _ in range(rng.integers(1, most + 1))]
        for i, flip in at:
            new[i] ^= flip
        return f"{kind} {at}", bytes(new)
    if kind in ("extreme", "text"):
        i, width = places[rng.integers(len(places))], int(rng.choice([1, 2, 4, 8]))
        number = EXTREMES[rng.integers(len(EXTREMES))]
        new[i : i + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
        return f"{number} in {width} bytes at {i}", bytes(new)
    if kind == "truncated":
        most = len(data.rstrip())  # white space at the end of metadata does not matter
        length = int(rng.integers(most) if rng.random() < 0.5 else max(0, most - 1 - rng.integers(40)))
        return f"truncated to {length} of {len(data)}", data[:length]
    noise = rng.bytes(int(rng.integers(1, 400)))
    ways = {"empty": b"", "random": noise, "random after the beginning": data[:8] + noise}
    ways |= {"random before the end": noise + data[-8:], "random appended": data + noise}
    way = str(rng.choice(list(ways)))
    return way, ways[way]


def runs(form):
    """For each operand whose files are damaged: it, and the arguments of two runs, the first made more often."""
    if form == "topk":
        return topk_runs()
    makers = [save for name, save in FORMS.items() if name.startswith(form)]
    operands = [save(f"file_{i}", rows(1, "f4" if i % 3 else "f8")) for i, save in enumerate(makers)]
    return [(operand, [operand, "--measure", "entropy"], [operand, "q.npy"]) for operand in operands]


def topk_runs():
    """Of top-k rows in three files, and in one."""
    p = rows(1)
    ids = np.argsort(p)[:, -3:]
    values = np.take_along_axis(p, ids, -1)
    parts = {"ids": ids, "values": values, "tail": 1 - values.sum(-1)}
    np.savez_compressed("all.npz", **parts)
    apart = [*npy(ids=ids), one_tensor("values", values), *npy(tail=parts["tail"])]
    together = [f"all.npz:{name}" for name in parts]
    found = []
    for operand, files in [*((file, apart) for file in apart), (together[0], together)]:
        options = [x for name, file in zip(parts, files, strict=True) for x in (f"--topk-{name}", file)]
        found += [(operand, ["q.npy", *options], ["q.npy", *options, "--measure", "js"])]
    return found


def run(form, count):
    resource.setrlimit(resource.RLIMIT_AS, (1 << 34, resource.getrlimit(resource.RLIMIT_AS)[1]))  # protects the machine
    npy(q=rows(2))
    operands = runs(form)
    for operand, _, arguments in operands:
        print(json.dumps(["undamaged", operand]))
        print(json.dumps([True, *scored(arguments)]))
    for i in range(count):
        rng, (turn, place) = np.random.default_rng(i), divmod(i, len(operands))
        operand, often, seldom = operands[place]
        path = Path(operand.partition(":")[0])
        files = sorted(x for x in path.rglob("*") if x.is_file() and "y" not in x.parts) or [path]  # y is not read
        weights = np.array([10.0 if file.suffix == ".json" or file.name == ".zarray" else 1.0 for file in files])
        file = files[rng.choice(len(files), p=weights / weights.sum())]
        before = file.read_bytes()
        what, after = damaged(rng, file.name, before)
        print(json.dumps([f"{i}: {file.name}: {what}", str(path)]), flush=True)
        file.write_bytes(after)
        arguments = [*(often if turn % 3 else seldom), "--invalid", "nan", "--threads", "1"]
        arguments += ["--out", "out.npy"] if turn % 4 == 0 else []
        print(json.dumps([after == before, *scored(arguments)]), flush=True)
        file.write_bytes(before)
        for left in Path().glob("out.npy*"):
            left.unlink()
    print(json.dumps(peak()))


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
