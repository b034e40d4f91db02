"""Files of every format that `fastkl.score` reads, with the same rows: what the tests of fastkl.batch share.

A function writes an array in the current folder, and returns the operand of that name. It needs the library of its format.
"""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np

from fastkl.batch import operands, score, workers
from support.kld import save_kld

ROWS, WIDTH = 211, 7  # primes: no part, chunk or row group ends at the same row as another


def small_parts(part, block):
    """A fixture for every test of a file: parts and blocks of that many bytes, and files named without a folder."""
    import pytest  # the programs of this folder need not wait for it

    @pytest.fixture(autouse=True)
    def in_small_parts(monkeypatch, tmp_path):
        monkeypatch.setattr(operands, "PART", part)
        monkeypatch.setattr(workers, "BLOCK", block)
        monkeypatch.setattr(workers, "PYTHON_BLOCK", block)
        monkeypatch.chdir(tmp_path)

    return in_small_parts


def refused(message, *files, error=ValueError, **options):
    """The error that `score` must raise; the measure of a single file is entropy."""
    import pytest

    with pytest.raises(error, match=message) as caught:
        score(*files, **({"measure": "entropy"} if len(files) == 1 else {}) | options)
    return caught.value


def rows(seed, dtype="f8", shape=(ROWS, WIDTH)):
    """Distributions if the dtype is a float, else weights."""
    values = np.random.default_rng(seed).random(shape)
    if np.dtype(dtype).kind == "f":
        return (values / values.sum(axis=-1, keepdims=True)).astype(dtype)
    weights = (values * 100).astype(dtype)
    weights[..., seed % shape[-1]] = 1
    return weights


def npy(**arrays):
    for name, values in arrays.items():
        np.save(f"{name}.npy", values)
    return [f"{name}.npy" for name in arrays]


def sparse(name, header, size):
    """Write a file of zeros after the header, which take no room."""
    Path(name).write_bytes(header)
    os.truncate(name, len(header) + size)


def rewrite(path, change):
    """Change a file in place, and its time."""
    before = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))


def grow(path):
    """Add a byte, and keep the time."""
    status = path.stat()
    os.truncate(path, status.st_size + 1)
    os.utime(path, ns=(1, status.st_mtime_ns))


def npy_2(name, values):
    """In version 2.0 of the format; np.save writes 1.0, of which test_batch_npy.py has more."""
    with open(f"{name}.npy", "wb") as file:
        np.lib.format.write_array(file, values, (2, 0))
    return f"{name}.npy"


def npz(save, member, name, values):
    save(f"{name}.npz", x=values, **({"y": values[::-1]} if member else {}))
    return f"{name}.npz{member}"


def arrow(values, kind):
    """The values as an array of Arrow: "flat", or with lists of that kind."""
    import pyarrow as pa

    flat = pa.array(values.reshape(-1))
    if kind == "flat":
        return flat
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[-1])
    ends = np.arange(len(values) + 1) * values.shape[-1]
    if kind == "list":
        return pa.ListArray.from_arrays(pa.array(ends.astype("i4")), flat)
    return pa.LargeListArray.from_arrays(pa.array(ends), flat)


def save_parquet(name, columns, **keywords):
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.table(columns), name, **keywords)
    return name


def parquet(kind, name, values, **keywords):
    columns = {"id": np.arange(len(values)), "x": arrow(values, kind), "y": arrow(values[::-1], kind)}
    return save_parquet(f"{name}.parquet", columns, **keywords) + ":x"


def parquet_folder(name, values):
    """A folder of files of different lengths, some without rows, written out of order; other files beside them."""
    from pyarrow import parquet as pq

    folder = Path(name)
    folder.mkdir()
    ends = sorted({0, *(end for end in (1, 40, 41, 150) if end < len(values)), len(values)})
    for i in reversed(range(len(ends) - 1)):
        save_parquet(f"{name}/part-{i}.parquet", {"x": arrow(values[ends[i] : ends[i + 1]], "fixed")}, row_group_size=16)
    for other in "part-0a", "part-9":
        save_parquet(f"{name}/{other}.parquet", {"x": arrow(values[:0], "fixed")})
    pq.ParquetWriter(f"{name}/part-0b.parquet", pq.read_schema(f"{name}/part-0.parquet")).close()  # without a row group
    for other in "_SUCCESS", ".part-9.parquet.crc", "notes.txt":
        (folder / other).touch()
    return name


def zarr_2():
    """The keywords that make zarr write its format 2."""
    import zarr

    return {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {}


def zarr_array(chunks, name, values, **keywords):
    import zarr

    made = {"shape": values.shape, "chunks": chunks, "dtype": values.dtype, "store": f"{name}.zarr"}
    if zarr_2():
        zarr.create_array(**made, **keywords)[...] = values
    else:
        codec = keywords.get("compressors", "default")
        made["compressor"] = zarr.codec_registry[codec["id"]]() if "id" in (codec or "") else codec
        zarr.create(**made)[...] = values
    return f"{name}.zarr"


def zarr_group(name, values):
    import zarr

    zarr.open_group(name, mode="w").create_group("a")
    for array in "x", "y":
        made = zarr_array((30, 7), f"{name}/a/{array}", values if array == "x" else values[::-1])
        Path(made).rename(f"{name}/a/{array}")
    return f"{name}:a/x"


def tensors(**arrays):
    """The bytes of a .safetensors file. Metadata and padding are there as in files of the library."""
    codes = {"f": "F", "i": "I", "u": "U"}
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, x in arrays.items():
        code = {"b": "BOOL", "V": "BF16"}.get(x.dtype.kind, f"{codes.get(x.dtype.kind)}{8 * x.itemsize}")
        header[name] = {"dtype": code, "shape": list(x.shape), "data_offsets": [start, start + x.nbytes]}
        start += x.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(x.astype(x.dtype.newbyteorder("<")).tobytes() for x in arrays.values())
    return len(text).to_bytes(8, "little") + text + data


def safetensors(name, values):
    Path(f"{name}.safetensors").write_bytes(tensors(y=values[::-1], x=values, z=values[:0]))
    return f"{name}.safetensors:x"


def one_tensor(name, values):
    Path(f"{name}.safetensors").write_bytes(tensors(logits=values))
    return f"{name}.safetensors"


def shards(name, values):
    """Tensors in two files, and the index that says which is where."""
    files = {f"{name}-1.safetensors": {"y": values[::-1]}, f"{name}-2.safetensors": {"x": values, "z": values[:1]}}
    for file, arrays in files.items():
        Path(file).write_bytes(tensors(**arrays))
    index = {"metadata": {}, "weight_map": {tensor: file for file, arrays in files.items() for tensor in arrays}}
    Path(f"{name}.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return f"{name}.safetensors.index.json:x"


def kld(name, values):
    """A .kld file, of which rows are near those given, as their logarithms are rounded to steps of 2.4e-4."""
    with np.errstate(divide="ignore"):
        return save_kld(f"{name}.kld", np.log(values))


FORMATS = {
    "npy": npy_2,
    "npz": partial(npz, np.savez, ""),
    "npz member": partial(npz, np.savez, ":x"),
    "npz compressed": partial(npz, np.savez_compressed, ":x"),
    "parquet list": partial(parquet, "list", row_group_size=10, data_page_size=200),
    "parquet large list": partial(parquet, "large", use_dictionary=False),
    "parquet fixed": partial(parquet, "fixed", compression="zstd", data_page_version="2.0"),
    "parquet folder": parquet_folder,
    "zarr": partial(zarr_array, (10, 7)),
    "zarr columns": partial(zarr_array, (23, 3)),
    "zarr one chunk": partial(zarr_array, (ROWS, WIDTH)),
    "zarr 2": partial(zarr_array, (16, 4), zarr_format=2),
    "zarr shards": partial(zarr_array, (16, 4), shards=(64, 8)),
    "zarr group": zarr_group,
    "safetensors": safetensors,
    "safetensors alone": one_tensor,
    "safetensors shards": shards,
}
ROUNDED = {"kld": kld}  # formats that do not keep every bit of the values
