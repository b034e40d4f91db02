"""Files in .npz, Parquet and Zarr: values have the bits of those of arrays, and damaged files give a one-line error."""

from __future__ import annotations

import gc
import importlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastkl
from fastkl import batch
from fastkl.batch import operands, output, results, workers
from fastkl.batch.readers import open_source, parquet_headers
from fastkl.batch.readers.npz import NpzSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Array = np.ndarray[Any, Any]

ROWS, WIDTH = 211, 7  # primes: no part, chunk or row group ends at the same row as another


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 17 rows of float64, in blocks of 5."""
    monkeypatch.setattr(operands, "PART", 17 * WIDTH * 8)
    monkeypatch.setattr(workers, "BLOCK", 5 * WIDTH * 8)


def rows(seed: int, dtype: Any = "f8", shape: tuple[int, ...] = (ROWS, WIDTH)) -> Array:
    """Distributions if the dtype is a float, else weights."""
    values = np.random.default_rng(seed).random(shape)
    if np.dtype(dtype).kind == "f":
        return (values / values.sum(axis=-1, keepdims=True)).astype(dtype)
    weights = (values * 100).astype(dtype)
    weights[..., seed % shape[-1]] = 1
    return weights


def score(*sources: Any, **keywords: Any) -> Any:
    """Score files; an array is saved first, because only runs of files can be resumed."""
    with tempfile.TemporaryDirectory() as folder:
        saved = []
        for i, source in enumerate(sources):
            saved.append(source if isinstance(source, (str, Path)) else Path(folder, f"{i}.npy"))
            if saved[-1] is not source:
                np.save(saved[-1], source)
        return batch.score(*saved, **keywords)


def assert_same_bits(result: Array, expected: Array) -> None:
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    assert result.tobytes() == expected.tobytes()


def bytes_of(path: Path) -> dict[str, bytes]:
    """The bytes of all files of a result."""
    files = sorted(x for x in path.rglob("*") if x.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


# ---- files of every kind ----


def arrow(values: Array, kind: str) -> Any:
    pa = pytest.importorskip("pyarrow")
    flat = pa.array(values.reshape(-1))
    if kind == "flat":
        return flat
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[-1])
    ends = np.arange(len(values) + 1) * values.shape[-1]
    if kind == "list":
        return pa.ListArray.from_arrays(pa.array(ends.astype("i4")), flat)
    return pa.LargeListArray.from_arrays(pa.array(ends), flat)


def save_parquet(path: Path, columns: dict[str, Any], **keywords: Any) -> str:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path, **keywords)
    return str(path)


def parquet(kind: str, **keywords: Any) -> Callable[[Path, Array], str]:
    def save(path: Path, values: Array) -> str:
        columns = {"id": np.arange(len(values)), "x": arrow(values, kind), "y": arrow(values[::-1], kind)}
        return save_parquet(path.with_suffix(".parquet"), columns, **keywords) + ":x"

    return save


def parquet_folder(path: Path, values: Array) -> str:
    """A folder of files of different lengths, some without rows, written out of order; other files beside them."""
    path.mkdir()
    ends = [0, 1, 1, 40, 41, 150, len(values)]
    for i in (3, 0, 1, 5, 4, 2):
        save_parquet(path / f"part-{i}.parquet", {"x": arrow(values[ends[i] : ends[i + 1]], "fixed")}, row_group_size=16)
    save_parquet(path / "part-6.parquet", {"x": arrow(values[:0], "fixed")})
    pq = pytest.importorskip("pyarrow.parquet")
    pq.ParquetWriter(path / "part-2a.parquet", pq.read_schema(path / "part-2.parquet")).close()  # without a row group
    (path / "_SUCCESS").touch()
    (path / ".part-9.parquet.crc").touch()
    (path / "notes.txt").touch()
    return str(path)


def zarr_array(chunks: Any, **keywords: Any) -> Callable[[Path, Array], str]:
    def save(path: Path, values: Array) -> str:
        zarr = pytest.importorskip("zarr")
        if keywords and int(zarr.__version__.split(".")[0]) < 3:
            keywords.clear()
        name = str(path.with_suffix(".zarr"))
        make = zarr.create_array if "shards" in keywords else zarr.create
        array = make(shape=values.shape, chunks=chunks, dtype=values.dtype, store=name, **keywords)
        array[...] = values
        return name

    return save


def zarr_group(path: Path, values: Array) -> str:
    zarr = pytest.importorskip("zarr")
    zarr.open_group(str(path), mode="w").create_group("a")
    for name in "x", "y":
        zarr_array((30, 7))(path / "a" / name, values if name == "x" else values[::-1])
        (path / "a" / name).with_suffix(".zarr").rename(path / "a" / name)
    return f"{path}:a/x"


def npz(save: Callable[..., None], member: str = "") -> Callable[[Path, Array], str]:
    def saved(path: Path, values: Array) -> str:
        others = {"y": values[::-1]} if member else {}
        save(path.with_suffix(".npz"), x=values, **others)
        return str(path.with_suffix(".npz")) + member

    return saved


FORMATS: dict[str, Callable[[Path, Array], str]] = {
    "npz": npz(np.savez),
    "npz member": npz(np.savez, ":x"),
    "npz compressed": npz(np.savez_compressed, ":x"),
    "parquet list": parquet("list", row_group_size=10, data_page_size=200),
    "parquet large list": parquet("large", use_dictionary=False),
    "parquet fixed": parquet("fixed", compression="zstd", data_page_version="2.0"),
    "parquet folder": parquet_folder,
    "zarr": zarr_array((10, 7)),
    "zarr columns": zarr_array((23, 3)),
    "zarr one chunk": zarr_array((ROWS, WIDTH)),
    "zarr 2": zarr_array((16, 4), zarr_format=2),
    "zarr shards": zarr_array((16, 4), shards=(64, 8)),
    "zarr group": zarr_group,
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "u4", "i2", "u1", "?"])
def test_values_have_the_bits_of_those_of_arrays(tmp_path: Path, form: str, dtype: str) -> None:
    p, q = rows(1, dtype), rows(2, dtype)
    saved = [FORMATS[form](tmp_path / name, x) for name, x in (("p", p), ("q", q))]
    keywords: Any = {"normalize": dtype not in ("f8", "f4", "f2")}
    score(*saved, out=tmp_path / "out.npy", **keywords)
    assert_same_bits(np.load(tmp_path / "out.npy"), fastkl.kl_divergence(p, q, **keywords))


@pytest.mark.parametrize("form", FORMATS)
def test_one_row_serves_all_rows(tmp_path: Path, form: str) -> None:
    p, q = rows(1), rows(2, shape=(1, WIDTH))
    if form == "parquet folder":
        pytest.importorskip("pyarrow")
        (tmp_path / "q").mkdir()
        saved = save_parquet(tmp_path / "q" / "1.parquet", {"x": arrow(q, "list")})
    else:
        saved = FORMATS[form](tmp_path / "q", q)
    score(FORMATS[form](tmp_path / "p", p), saved, out=tmp_path / "out.npy", measure="js")
    assert_same_bits(np.load(tmp_path / "out.npy"), fastkl.js_divergence(p, q))


@pytest.mark.parametrize("form", FORMATS)
def test_read_from_anywhere(tmp_path: Path, form: str) -> None:
    """Reading goes on, back and forward, of no rows, one row and all rows."""
    values = rows(1)
    source = open_source("p", FORMATS[form](tmp_path / "p", values))
    places = [(0, 20), (20, 41), (41, 41), (100, 101), (3, 4), (0, ROWS), (ROWS - 1, ROWS), (149, 152), (39, 41), (0, 1)]
    for start, stop in places:
        assert_same_bits(source.read(start, stop), values[start:stop])
    source.close()


@pytest.mark.parametrize("measure", ["compare", "nll"])
@pytest.mark.parametrize("form", ["npz", "npz compressed", "parquet flat", "zarr"])
def test_labels(tmp_path: Path, form: str, measure: str) -> None:
    q, labels = rows(2, "f4"), np.random.default_rng(3).integers(0, WIDTH, ROWS).astype("i4")
    save = {"parquet flat": parquet("flat", row_group_size=50), "zarr": zarr_array((20,))}.get(form) or FORMATS[form]
    saved = save(tmp_path / "labels", labels)
    if measure == "nll":
        score(q, labels=saved, measure="nll", out=tmp_path / "out.npy")
        assert_same_bits(np.load(tmp_path / "out.npy"), fastkl.nll(labels, q))
    else:
        score(q, rows(1, "f4"), saved, out=tmp_path / "out.npy")
        expected = fastkl.compare(q, rows(1, "f4"), labels=labels)
        assert_same_bits(np.load(tmp_path / "out.npy")["nll_p"], expected.nll_p)


def test_only_column(tmp_path: Path) -> None:
    """The only list column, or the only column, needs no name."""
    labels = np.arange(ROWS) % WIDTH
    rows_alone = save_parquet(tmp_path / "p.parquet", {"id": labels, "x": arrow(rows(1), "list")})
    labels_alone = save_parquet(tmp_path / "labels.pq", {"id": labels})
    score(rows_alone, labels=labels_alone, measure="nll", out=tmp_path / "out.npy")
    assert_same_bits(np.load(tmp_path / "out.npy"), fastkl.nll(labels, rows(1)))


def test_one_distribution_in_a_column(tmp_path: Path) -> None:
    """A column of numbers can be one distribution, as an array with one axis is."""
    q = rows(2, shape=(1, WIDTH))[0]
    saved = save_parquet(tmp_path / "q.parquet", {"x": q}, row_group_size=3)
    score(rows(1), saved, out=tmp_path / "out.npy")
    assert_same_bits(np.load(tmp_path / "out.npy"), fastkl.kl_divergence(rows(1), q))


@pytest.mark.parametrize("chunks", [(2, 3, 5, 7), (1, 1, 4, 3), (1, 4, 6, 7), (3, 5, 6, 7), (1, 1, 1, 1)])
def test_leading_axes_in_zarr(tmp_path: Path, chunks: Any) -> None:
    p, q = rows(1, shape=(3, 5, 6, WIDTH)), rows(2, shape=(3, 5, 6, WIDTH))
    saved = [zarr_array(chunks)(tmp_path / name, x) for name, x in (("p", p), ("q", q))]
    score(*saved, out=tmp_path / "out.zarr")
    zarr = pytest.importorskip("zarr")
    assert_same_bits(zarr.open_array(str(tmp_path / "out.zarr"), mode="r")[...], fastkl.kl_divergence(p, q))


def test_parts_end_where_chunks_do(tmp_path: Path) -> None:
    """Each chunk is then read once."""
    for i, (shape, chunks, together) in enumerate(
        [
            ((ROWS, WIDTH), (10, 3), 10),
            ((3, 4, 6, WIDTH), (1, 2, 6, 7), 12),
            ((8, 4, WIDTH), (4, 1, 7), 16),
            ((9,), (4,), 1),
        ]
    ):
        source = open_source("p", zarr_array(chunks)(tmp_path / str(i), rows(1, shape=shape)))
        assert source.chunk_rows == together


@settings(max_examples=200)
@given(st.lists(st.integers(1, 5), max_size=4), st.data())
def test_boxes_of_a_range(shape: list[int], data: Any) -> None:
    """Boxes hold the whole range in order; there are at most two for each axis except the last."""
    reader = pytest.importorskip("zarr") and importlib.import_module("fastkl.batch.readers.zarr")
    places = np.arange(math.prod(shape)).reshape(shape)
    start = data.draw(st.integers(0, places.size))
    stop = data.draw(st.integers(start, places.size)) if shape else 1
    boxes = list(reader.boxes(start if shape else 0, stop, tuple(shape)))
    found = [places[box].reshape(-1) for box in boxes]
    assert np.concatenate([*found, []]).tolist() == list(range(start if shape else 0, stop))
    assert len(boxes) <= max(1, 2 * len(shape) - 1)


# ---- results ----


def read_back(path: Path) -> Any:
    """The columns of a result, or its one array."""
    if path.suffix == ".zarr":
        zarr = pytest.importorskip("zarr")
        opened = zarr.open(str(path), mode="r")
        return {name: opened[name][...] for name in opened.array_keys()} if hasattr(opened, "array_keys") else opened[...]
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return columns["value"] if list(columns) == ["value"] else columns


@pytest.mark.parametrize("suffix", [".parquet", ".zarr"])
def test_results(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("pyarrow" if suffix == ".parquet" else "zarr")
    p, q = rows(1, "f4"), rows(2, "f4")
    q[5, 0], p[7, 0] = 0, np.nan  # infinite, and invalid
    score(p, q, out=tmp_path / f"a{suffix}", invalid="nan", normalize=True)
    expected = fastkl.kl_divergence(p, q, invalid="nan", normalize=True)
    assert_same_bits(read_back(tmp_path / f"a{suffix}"), expected)
    score(p, q, out=tmp_path / f"b{suffix}", invalid="nan", normalize=True, measure="compare")
    fields = read_back(tmp_path / f"b{suffix}")
    expected = fastkl.compare(p, q, invalid="nan", normalize=True)._asdict()
    assert set(fields) == {name for name, x in expected.items() if x is not None}
    for name, values in fields.items():
        assert_same_bits(values, expected[name])
    assert sorted(x.name for x in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


@pytest.mark.parametrize("suffix", [".parquet", ".zarr"])
@pytest.mark.parametrize("shape", [(0, WIDTH), (WIDTH,), (1, WIDTH), (2, 3, WIDTH)])
def test_results_of_any_shape(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    pytest.importorskip("pyarrow" if suffix == ".parquet" else "zarr")
    expected = np.asarray(fastkl.entropy(rows(1, shape=shape)))
    score(rows(1, shape=shape), measure="entropy", out=tmp_path / f"out{suffix}")
    assert_same_bits(read_back(tmp_path / f"out{suffix}"), expected if suffix == ".zarr" else expected.reshape(-1))


def test_large_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of many chunks and row groups, from parts that end elsewhere."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("zarr")
    formats = [importlib.import_module(f"fastkl.batch.writers.{name}") for name in ("parquet", "zarr")]
    monkeypatch.setattr(formats[0], "GROUP", 50)
    monkeypatch.setattr(formats[1], "CHUNK", 20)
    monkeypatch.setattr(output, "READ", 33 * 8)
    p = rows(1, shape=(5, 43, WIDTH))
    for suffix in ".parquet", ".zarr":
        score(p, measure="entropy", out=tmp_path / f"out{suffix}")
        values = read_back(tmp_path / f"out{suffix}")
        assert_same_bits(values.reshape(5, 43), fastkl.entropy(p))
    metadata = pytest.importorskip("pyarrow.parquet").read_metadata(tmp_path / "out.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [50, 50, 50, 50, 15]
    chunk_of(tmp_path / "out.zarr").unlink()  # a lost chunk is not read as 0
    assert np.isnan(read_back(tmp_path / "out.zarr")).any()


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of any type, in the order of `keys`, stand beside the values of their rows."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(importlib.import_module("fastkl.batch.writers.parquet"), "GROUP", 64)
    names = [None if i % 5 == 0 else f"row {i}" for i in range(ROWS)]
    table = pa.table(
        {
            "name": names,
            "x": arrow(rows(1), "list"),
            "day": pa.array(np.arange(ROWS).astype("i4"), pa.int32()).cast(pa.date32()),
            "kind": pa.array([str(i % 3) for i in range(ROWS)]).dictionary_encode(),
            "a.b": pa.array([{"c": i, "d": [i] * (i % 3)} for i in range(ROWS)]),
            "a": np.arange(ROWS),
        }
    )
    (tmp_path / "p").mkdir()
    for i, (start, stop) in enumerate([(0, 100), (100, 101), (101, ROWS)]):
        pq.write_table(table.slice(start, stop - start), tmp_path / "p" / f"{i}.parquet", row_group_size=30)
    keys = ["kind", "name", "a.b", "day", "a"]
    score(f"{tmp_path / 'p'}:x", rows(2), out=tmp_path / "out.parquet", keys=keys)
    result = pq.read_table(tmp_path / "out.parquet")
    assert result.column_names == [*keys, "value"]
    for key in keys:
        assert result[key].type == table[key].type
        assert result[key].to_pylist() == table[key].to_pylist()
    assert_same_bits(result["value"].to_numpy(), fastkl.kl_divergence(rows(1), rows(2)))


def test_wide_keys_make_small_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(importlib.import_module("fastkl.batch.writers.parquet"), "GROUP_BYTES", 20 * WIDTH * 8)
    p = save_parquet(tmp_path / "p.parquet", {"x": arrow(rows(1), "fixed")})
    score(p, measure="entropy", out=tmp_path / "out.parquet", keys=["x"])
    metadata = pytest.importorskip("pyarrow.parquet").read_metadata(tmp_path / "out.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)][:2] == [20, 20]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["other"], "1.parquet: has no column 'other': it has 'id', 'x', 'kl'"),
        (["id"], "2.parquet: column 'id' has type double: must have type int64, as in "),
        (["x", "x"], "keys: 'x' would be the name of two columns"),
        (["kl"], "keys: 'kl' would be the name of two columns"),
    ],
)
def test_missing_keys_are_refused(tmp_path: Path, keys: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused before anything is computed."""
    pytest.importorskip("pyarrow")
    (tmp_path / "p").mkdir()
    for i in (1, 2):
        columns = {"id": np.arange(ROWS) * (1 if i == 1 else 0.5), "x": arrow(rows(1), "list"), "kl": np.zeros(ROWS)}
        save_parquet(tmp_path / "p" / f"{i}.parquet", columns)
    monkeypatch.setattr(results.Results, "update", lambda *_: pytest.fail("something was computed"))
    with pytest.raises(ValueError, match=r"column|keys") as error:
        score(f"{tmp_path / 'p'}:x", np.tile(rows(2), (2, 1)), measure="compare", out=tmp_path / "out.parquet", keys=keys)
    assert message in str(error.value)
    assert [x.name for x in tmp_path.iterdir()] == ["p"]


def test_keys_need_parquet_of_as_many_rows(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    np.save(tmp_path / "p.npy", rows(1))
    with pytest.raises(ValueError, match=r"keys: only where p is Parquet, and .*p.npy is not"):
        score(tmp_path / "p.npy", rows(2), out=tmp_path / "out.parquet", keys=["id"])
    one = save_parquet(tmp_path / "p.parquet", {"x": arrow(rows(1)[:1], "list"), "id": [7]})
    with pytest.raises(ValueError, match=f"keys: .*p.parquet has 1 rows, and the result {ROWS}: must be as many"):
        score(one, rows(2), out=tmp_path / "out.parquet", keys=["id"])
    score(one, rows(2)[0], out=tmp_path / "out.parquet", keys=["id"])
    assert pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out.parquet")["id"].to_pylist() == [7]


@pytest.mark.parametrize("suffix", [".parquet", ".zarr"])
def test_full_disk_names_the_file(tmp_path: Path, suffix: str) -> None:
    """The error names the file that cannot be written."""
    pytest.importorskip("pyarrow" if suffix == ".parquet" else "zarr")
    resource = pytest.importorskip("resource")
    values = np.random.default_rng(0).random(100_000)
    writer = importlib.import_module(f"fastkl.batch.writers{suffix}").writer
    write = writer(open_source("p", rows(1)), [], values.dtype, values.shape)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            write(tmp_path / f"out{suffix}", iter([values]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"out{suffix}" in str(error.value.filename)


# ---- interruptions and changes ----


def stop_after(monkeypatch: pytest.MonkeyPatch, parts: int, do: Callable[[], Any]) -> None:
    """Call a function when that many parts are done."""
    append, count = output.Draft.append, iter(range(1 << 30))

    def stopping(self: output.Draft, values: Array) -> None:
        append(self, values)
        if next(count) == parts:
            do()

    monkeypatch.setattr(output.Draft, "append", stopping)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".zarr"])
@pytest.mark.parametrize("form", ["npz compressed", "parquet list", "parquet folder", "zarr", "zarr columns"])
@pytest.mark.parametrize("measure", ["kl", "compare"])
def test_resumed_results_have_the_same_bytes(
    tmp_path: Path, form: str, suffix: str, measure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result has the bytes of an uninterrupted run."""
    pytest.importorskip({".npy": "numpy", ".parquet": "pyarrow", ".zarr": "zarr"}[suffix])
    saved = [FORMATS[form](tmp_path / name, rows(i)) for i, name in enumerate("pq")]
    keys = ["id"] if form == "parquet list" and suffix == ".parquet" else []
    out, undisturbed = tmp_path / f"out{suffix}", tmp_path / f"undisturbed{suffix}"
    expected = score(*saved, out=undisturbed, measure=measure, keys=keys, threads=2)
    for parts in (0, 2):
        with monkeypatch.context() as patch:
            stop_after(patch, parts, interrupt)
            with pytest.raises(KeyboardInterrupt):
                score(*saved, out=out, measure=measure, keys=keys, resume=parts > 0, threads=2)
        assert not out.exists()
    read: list[int] = []
    worker = workers.Worker.__call__
    monkeypatch.setattr(
        workers.Worker, "__call__", lambda self, part, *more: (read.append(part.start), worker(self, part, *more))[1]
    )
    summary = score(*saved, out=out, measure=measure, keys=keys, resume=True, threads=2)
    assert min(read) > 0
    assert bytes_of(out) == bytes_of(undisturbed)
    assert not list(tmp_path.glob("out*.*.*"))
    for name in {"mean", "quantiles", "max_row", "kl"} & set(summary):
        own, other = summary[name], expected[name]
        if name == "kl":
            own, other = own["mean"], other["mean"]
        assert own == other


def test_resuming_skips_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    source = open_source("p", FORMATS["parquet list"](tmp_path / "p", rows(1)))
    asked: list[int] = []
    batches = type(source).batches  # type: ignore[attr-defined]
    monkeypatch.setattr(type(source), "batches", lambda *args: (asked.append(args[2]), batches(*args))[1])
    assert_same_bits(source.read(125, 140), rows(1)[125:140])
    assert asked == [12]  # of 10 rows each
    source.close()


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file in place, and its time."""
    before = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))


def chunk_of(path: Path) -> Path:
    return max(x for x in path.rglob("*") if x.is_file() and x.suffix != ".json" and not x.name.startswith(".z"))


CHANGES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "npz truncated": ("npz", lambda path: rewrite(path.with_suffix(".npz"), lambda data: data[: len(data) // 2])),
    "parquet truncated": ("parquet list", lambda path: rewrite(path.with_suffix(".parquet"), lambda x: x[: len(x) // 2])),
    "parquet emptied": ("parquet list", lambda path: rewrite(path.with_suffix(".parquet"), lambda _: b"")),
    "parquet edited": ("parquet list", lambda path: rewrite(path.with_suffix(".parquet"), lambda x: x[:-50] + bytes(50))),
    "parquet grown": ("parquet list", lambda path: rewrite(path.with_suffix(".parquet"), lambda x: x + b"more")),
    "file truncated": ("parquet folder", lambda path: rewrite(path / "part-5.parquet", lambda x: x[:100])),
    "file removed": ("parquet folder", lambda path: (path / "part-5.parquet").unlink()),
    "file added": ("parquet folder", lambda path: shutil.copy(path / "part-0.parquet", path / "part-7.parquet")),
    "chunk truncated": ("zarr", lambda path: rewrite(chunk_of(path.with_suffix(".zarr")), lambda x: x[:10])),
    "chunk removed": ("zarr", lambda path: chunk_of(path.with_suffix(".zarr")).unlink()),
    "first chunk edited": ("zarr 2", lambda path: rewrite(path.with_suffix(".zarr") / "0.0", lambda x: x)),
    "first chunk replaced by an older one": ("zarr 2", lambda path: os.utime(path.with_suffix(".zarr") / "0.0", (1, 1))),
    "metadata edited": ("zarr 2", lambda path: rewrite(path.with_suffix(".zarr") / ".zarray", lambda x: x + b"\n")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_inputs_that_change_end_the_run(tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    form, do = CHANGES[change]
    saved = FORMATS[form](tmp_path / "p", rows(1))
    stop_after(monkeypatch, 1, lambda: do(tmp_path / "p"))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        score(saved, rows(2), out=tmp_path / "out.npy", threads=1, invalid="nan")
    assert str(tmp_path / "p") in str(error.value)
    if isinstance(error.value, ValueError):
        assert "was changed while it was read" in str(error.value)
        assert "row " in str(error.value)
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize("form", ["parquet folder", "zarr"])
def test_results_inside_an_input_are_refused(tmp_path: Path, form: str) -> None:
    saved = FORMATS[form](tmp_path / "p", rows(1))
    for name in ("out.npy", "more"):
        with pytest.raises(OSError, match=r"is in the input .*: a result would be taken for a part of it"):
            score(saved, rows(2), out=Path(saved) / f"{name}{'' if '.' in name else '.parquet'}")
    with pytest.raises(OSError, match=r"exists|is in the input"):
        score(saved, rows(2), out=saved if form == "zarr" else Path(saved) / "part-0.parquet")
    score(saved, rows(2), out=tmp_path / "out.npy")


def test_large_row_group_is_read_in_batches(tmp_path: Path) -> None:
    """Only a few batches of 4 MB are in memory, with the reader's own data: less than half of 40 MB."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    values = rows(1, shape=(20_000, 500)).astype("f4")
    name = save_parquet(
        tmp_path / "p.parquet", {"x": arrow(values, "fixed")}, row_group_size=len(values), use_dictionary=False
    )
    assert pq.read_metadata(name).num_row_groups == 1
    gc.collect()
    source, before = open_source("p", name), pa.total_allocated_bytes()
    most = 0
    for start in range(0, len(values), 1000):
        assert_same_bits(source.read(start, start + 1000), values[start : start + 1000])
        most = max(most, pa.total_allocated_bytes() - before)
    source.close()
    assert 0 < most < 20 << 20


# ---- inputs that are refused ----


def test_nulls_and_wrong_lengths_are_refused(tmp_path: Path) -> None:
    """The error names the file and the row, counted in the file and in all files."""
    pa = pytest.importorskip("pyarrow")
    lists = rows(1).tolist()

    def broken(entry: Any, at: int = 17) -> list[Any]:
        return [*lists[:at], entry, *lists[at + 1 :]]

    cases: list[tuple[list[Any], Any, str]] = [
        (broken(None), pa.list_(pa.float64()), "{} is null: fill missing values, or leave their rows out"),
        (broken([0.5, None] + [0.1] * 5), pa.list_(pa.float64()), "{} is null in entry 1: fill missing"),
        (broken([0.5, 0.5]), pa.list_(pa.float64()), "{} has 2 entries: must have 7, as the first row has"),
        (broken([0.5, 0.5]), pa.large_list(pa.float32()), "{} has 2 entries: must have 7"),
        (broken(None), pa.list_(pa.float64(), WIDTH), "{} is null"),
        (broken([None] + [0.1] * 6), pa.list_(pa.float64(), WIDTH), "{} is null in entry 0"),
    ]
    for i, (column, kind, message) in enumerate(cases):
        name = save_parquet(tmp_path / f"{i}.parquet", {"x": pa.array(column, kind)}, row_group_size=10)
        with pytest.raises(ValueError, match=f"^{name}: {message.format('row 17')}"):
            score(name, rows(2), out=tmp_path / "out.npy")
        (tmp_path / "out.npy.partial").unlink(missing_ok=True)
        (tmp_path / "out.npy.checkpoint").unlink(missing_ok=True)
        folder = tmp_path / f"folder {i}"
        folder.mkdir()
        save_parquet(folder / "0.parquet", {"x": pa.array(lists, kind)})
        shutil.move(name, folder / "1.parquet")
        place = f"row 17 [(]row {ROWS + 17} of all[)]"
        with pytest.raises(ValueError, match=f"^{folder / '1.parquet'}: {message.format(place)}"):
            score(folder, measure="entropy")
    name = save_parquet(tmp_path / "first.parquet", {"x": pa.array(broken(None, 0))})
    with pytest.raises(ValueError, match=r"first.parquet: row 0 is null"):
        score(name, measure="entropy")
    name = save_parquet(tmp_path / "labels.parquet", {"x": pa.array([3, None, 4])})
    with pytest.raises(ValueError, match=r"labels.parquet: row 1 is null"):
        score(rows(2)[:3], labels=name, measure="nll")


def test_columns_of_other_types_are_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    columns = {
        "text": pa.array(["a", "b"]),
        "kind": pa.array(["a", "b"]).dictionary_encode(),
        "decimal": pa.array([1, 2], pa.decimal128(5)),
        "texts": pa.array([["a"], ["b"]]),
        "deep": pa.array([[[1.0]], [[2.0]]]),
        "struct": pa.array([{"a": 1}, {"a": 2}]),
    }
    for name, column in columns.items():
        path = save_parquet(tmp_path / f"{name}.parquet", {name: column})
        with pytest.raises(TypeError, match=r"has a column of type .*: must be lists of numbers, or numbers") as error:
            score(f"{path}:{name}", measure="entropy")
        assert str(error.value).startswith(path)
    path = save_parquet(tmp_path / "all.parquet", columns)
    for column in "", ":other":
        with pytest.raises(ValueError, match="it has 'text', 'kind', 'decimal', 'texts', 'deep', 'struct'"):
            score(path + column, measure="entropy")
    path = save_parquet(tmp_path / "none.parquet", {"x": pa.array([], pa.list_(pa.float64()))})
    with pytest.raises(ValueError, match=r"none.parquet: has no rows"):
        score(path, measure="entropy")


def test_folders_of_other_files_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    folder = tmp_path / "p"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"p: is a folder without a .parquet file, and no Zarr array"):
        score(folder, measure="entropy")
    save_parquet(folder / "0.parquet", {"x": arrow(rows(1), "list")})
    save_parquet(folder / "1.parquet", {"x": arrow(rows(1, "f4"), "list")})
    with pytest.raises(ValueError, match=r"1.parquet: column 'x' has type list<.*float>: must have that of .*0.parquet"):
        score(folder, measure="entropy")
    save_parquet(folder / "1.parquet", {"y": arrow(rows(1), "list")})
    with pytest.raises(ValueError, match=r"1.parquet: has no column 'x': it has 'y'"):
        score(folder, measure="entropy")
    (folder / "year=1").mkdir()
    with pytest.raises(ValueError, match="p: has the folder year=1 in it: name a folder of files, or one of them"):
        score(folder, measure="entropy")


def test_unsuitable_zarr_is_refused(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr_group(tmp_path / "group.zarr", rows(1)).rpartition(":")[0]
    for member in "", ":a", ":other", ":a/z":
        with pytest.raises(ValueError, match=f"{group}{member}: name one of its arrays after a colon: it has 'a/x', 'a/y'"):
            score(group + member, measure="entropy")
    with pytest.raises(TypeError, match="has dtype complex128: must be float64"):
        score(zarr_array((5, 5))(tmp_path / "complex", rows(1).astype("c16")), measure="entropy")
    keywords: Any = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {}
    large = str(tmp_path / "large.zarr")
    zarr.create((10**9, WIDTH), chunks=(10**8, WIDTH), dtype="f8", store=large, **keywords)
    with pytest.raises(ValueError, match=r"its chunks, of shape .100000000, 7., take 5600000000 bytes each"):
        score(large, measure="entropy")
    # A codec that would run code from the chunk.
    name = zarr_array((5, 5), zarr_format=2)(tmp_path / "pickle", rows(1))
    metadata = json.loads((Path(name) / ".zarray").read_text())
    metadata["filters"] = [{"id": "pickle", "protocol": 5}]
    (Path(name) / ".zarray").write_text(json.dumps(metadata))
    with pytest.raises(TypeError, match=r"pickle.zarr: holds pickled objects, which are never read"):
        score(name, measure="entropy")


def test_missing_chunk_is_the_fill_value(tmp_path: Path) -> None:
    """Zarr leaves out chunks of the fill value; one that was missing from the start is no change."""
    name = zarr_array((10, WIDTH), zarr_format=2)(tmp_path / "p", rows(1))
    (Path(name) / "3.0").unlink()
    score(name, measure="entropy", invalid="nan", out=tmp_path / "out.npy")
    assert np.flatnonzero(np.isnan(np.load(tmp_path / "out.npy"))).tolist() == list(range(30, 40))


@pytest.mark.parametrize(
    ("library", "module", "message"),
    [
        ("pyarrow", "parquet", r"Parquet files need pyarrow: pip install 'fastkl\[parquet\]'"),
        ("zarr", "zarr", r"Zarr arrays need zarr: pip install 'fastkl\[zarr\]'"),
    ],
)
def test_missing_library_is_named(
    tmp_path: Path, library: str, module: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for package in "readers", "writers":
        monkeypatch.delitem(sys.modules, f"fastkl.batch.{package}.{module}", raising=False)
    monkeypatch.delitem(sys.modules, "fastkl.batch.readers.parquet_files", raising=False)
    path = tmp_path / ("p.parquet" if library == "pyarrow" else "p.zarr")
    path.touch() if library == "pyarrow" else path.mkdir()
    with pytest.raises(ImportError, match=message):
        score(path, measure="entropy")
    with pytest.raises(ImportError, match=message):
        score(rows(1), measure="entropy", out=tmp_path / f"out{path.suffix}")


# ---- damaged files ----


def reports(lines: list[Any]) -> Iterator[tuple[str, str, bool, int, str]]:
    """The damage, the file, whether its bytes are the same, the exit status, and standard error."""
    for (what, path), (same, status, stderr) in zip(lines[::2], lines[1::2], strict=True):
        yield what, path, same, status, stderr


@pytest.mark.parametrize(("form", "library"), [("npz", "numpy"), ("parquet", "pyarrow"), ("zarr", "zarr")])
def test_damaged_files(tmp_path: Path, form: str, library: str) -> None:
    """The command never crashes or needs much memory: it prints a line that names the file, or nothing if it can be read.

    A truncated file is always refused.
    """
    pytest.importorskip(library)
    count = 500 if settings().max_examples <= 100 else 20_000
    child = [sys.executable, Path(__file__).with_name("damaged_files.py"), form, tmp_path / "files", str(count)]
    (tmp_path / "files").mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(child, capture_output=True, text=True, check=False, env=environment)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, f"{lines[-1:]}: {run.stderr}"
    *lines, memory = lines
    undamaged = [line for line in lines if line[0] == "undamaged"]
    assert undamaged
    assert all(line[2:] == [0, ""] for line in undamaged), undamaged
    damaged = list(reports(lines[len(undamaged) :]))
    assert len(damaged) == count
    for what, path, same, status, stderr in damaged:
        message = f"{path}, {what}: {status} {stderr}"
        if status == 0:
            assert not stderr, message
            assert same or "truncated" not in what, message
        else:
            assert status == 1, message
            assert stderr.startswith("fastkl: "), message
            assert stderr.count("\n") == 1, message
            assert path in stderr, message
    assert sum(status for *_, status, _ in damaged) > count // 2
    assert memory < 500e6


@pytest.mark.parametrize("keywords", [{}, {"use_dictionary": False}, {"data_page_version": "2.0", "data_page_size": 500}])
def test_parquet_headers_are_read_as_by_pyarrow(tmp_path: Path, keywords: dict[str, Any]) -> None:
    """Rows and positions of columns are those that pyarrow reads. The pages fill the columns, with any statistics."""
    pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {
        "text": ["x" * 3000] * ROWS,
        "x": arrow(rows(1), "list"),
        "none": [None] * ROWS,
        "flag": np.zeros(ROWS, bool),
    }
    path = save_parquet(tmp_path / "p.parquet", columns, row_group_size=50, write_page_index=True, **keywords)
    metadata = pq.read_metadata(path)
    with Path(path).open("rb") as file:
        footer = parquet_headers.read_footer(path, file)
        assert footer.size == metadata.serialized_size
        assert [group.rows for group in footer.groups] == [50, 50, 50, 50, 11]
        for i, group in enumerate(footer.groups):
            for j, chunk in enumerate(group.chunks):
                known = metadata.row_group(i).column(j)
                start = known.dictionary_page_offset or known.data_page_offset
                sizes = known.total_compressed_size, known.total_uncompressed_size
                assert chunk == (known.path_in_schema, start, *sizes)
                parquet_headers.check_pages(file, chunk)
                place = chunk.start
                while place < chunk.start + chunk.size:
                    fields, length = parquet_headers.page_header(file, place)
                    place += length + fields[3]
                assert place == chunk.start + chunk.size


@pytest.mark.parametrize("size", [2**31 - 1, 2**62, -1, 300])
def test_page_larger_than_its_column_is_refused(size: int) -> None:
    """The library would clear that much memory."""
    header = b"\x15\x00\x15\xc8\x01\x15"  # a data page of 100 bytes unpacked, and ...
    data = header + b"".join([encoded(size), b"\x00", bytes(100)])
    chunk = parquet_headers.Chunk("x", 0, 120, 100)
    with pytest.raises(ValueError, match=rf"the page at 0 of column 'x' says that it is {size} bytes long, 100 unpacked"):
        parquet_headers.check_pages(io.BytesIO(data), chunk)
    parquet_headers.check_pages(io.BytesIO(header + encoded(120 - len(header) - 3) + bytes(113)), chunk)


def encoded(number: int) -> bytes:
    """An integer in Thrift's compact protocol: zigzag, then seven bits in each byte."""
    rest, parts = number * 2 if number >= 0 else -2 * number - 1, []
    while rest > 127:
        parts.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*parts, rest])


def test_checksums_of_pages_are_verified(tmp_path: Path) -> None:
    """In a file with checksums, one changed bit of a number is an error."""
    keywords: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    path = Path(save_parquet(tmp_path / "p.parquet", {"x": arrow(rows(1), "fixed")}, **keywords))
    data = bytearray(path.read_bytes())
    data[data.index(rows(1)[100].tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"p.parquet: is damaged in row 0 or after it: .*(CRC|checksum)"):
        score(path, measure="entropy", normalize=True)


def test_short_blosc_chunk_is_refused(tmp_path: Path) -> None:
    """Blosc itself would read the memory behind it."""
    zarr = pytest.importorskip("zarr")
    numcodecs = pytest.importorskip("numcodecs")
    two: Any = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {}
    path = tmp_path / "p.zarr"
    zarr.create((ROWS, WIDTH), chunks=(50, WIDTH), dtype="f8", store=str(path), compressor=numcodecs.Blosc(), **two)[:] = (
        rows(1)
    )
    data = (path / "2.0").read_bytes()
    for size in 0, 10, 16, len(data) - 1:
        (path / "2.0").write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"p.zarr: is damaged in rows .*: chunk 2.0 has .* bytes, and says"):
            score(path, measure="entropy")
    (path / "2.0").write_bytes(data)
    score(path, measure="entropy")


def test_impossible_size_in_an_archive_is_refused(tmp_path: Path) -> None:
    """A member cannot be larger than its compressed bytes allow, whatever its header says."""
    np.savez_compressed(tmp_path / "p.npz", x=np.zeros((10**6, 8), "f4"))  # deflate compresses zeros most
    source = NpzSource("p", tmp_path / "p.npz", None)
    assert source.rows == 10**6
    source.close()
    data = bytearray((tmp_path / "p.npz").read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
    (tmp_path / "p.npz").write_bytes(data)
    with pytest.raises(ValueError, match="p: is damaged: 4294967294 bytes cannot be"):
        NpzSource("p", tmp_path / "p.npz", None)
