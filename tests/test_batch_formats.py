"""Files in .npz, Parquet and Zarr: values have the bits of those of arrays, and damaged files give a one-line error.

What is Parquet's or Zarr's alone is in test_batch_parquet.py and test_batch_zarr.py.
"""

import contextlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.batch_files import (
    FORMATS,
    ROUNDED,
    ROWS,
    WIDTH,
    grow,
    npy,
    parquet,
    refused,
    rewrite,
    rows,
    small_parts,
    sparse,
    zarr_array,
)
from support.batch_runs import call_after, interrupt, output_of, without_speed
from support.kld import header
from support.measures import assert_same_bits
from support.processes import NIGHT, program

import fastkl
from fastkl.__main__ import main
from fastkl.batch import output, score, workers
from fastkl.batch.readers import open_source, parquet_headers

LIBRARIES = {"parquet": "pyarrow", "zarr": "zarr"}
slow = pytest.mark.slow
_in_small_parts = small_parts(17 * WIDTH * 8, 5 * WIDTH * 8)  # 17 rows and 5 rows of float64


def installed(request):
    """The name of a format or the suffix of a result; the test is skipped if it needs a library that is missing."""
    name = request.param
    pytest.importorskip(LIBRARIES.get(name.split()[0].lstrip("."), "numpy"))
    return name


form = pytest.fixture(installed, params=FORMATS, name="form")
suffix = pytest.fixture(installed, params=[".parquet", ".zarr"], name="suffix")


def only(*forms):
    return pytest.mark.parametrize("form", forms, indirect=True)


def save(form, **arrays):
    return [(FORMATS | ROUNDED)[form](name, values) for name, values in arrays.items()]


def bytes_of(path):
    """The bytes of all files of a result."""
    files = sorted(x for x in path.rglob("*") if x.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.parametrize("dtype", ["f4", "i8", "?", *(pytest.param(x, marks=slow) for x in ("f8", "f2", "u4", "i2", "u1"))])
def test_values_have_the_bits_of_those_of_arrays(form, dtype):
    p, q = rows(1, dtype), rows(2, dtype)
    normalize = np.dtype(dtype).kind != "f"
    score(*save(form, p=p, q=q), out="out.npy", normalize=normalize)
    assert_same_bits(np.load("out.npy"), fastkl.kl_divergence(p, q, normalize=normalize))


def test_one_row_serves_all_rows(form):
    p, q = rows(1), rows(2, shape=(1, WIDTH))
    score(*save(form, p=p, q=q), out="out.npy", measure="js")
    assert_same_bits(np.load("out.npy"), fastkl.js_divergence(p, q))


PLACES = [(0, 20), (20, 41), (41, 41), (100, 101), (3, 4), (0, ROWS), (ROWS - 1, ROWS), (149, 152), (39, 41), (0, 1)]


def test_read_from_anywhere(form):
    """Reading goes on, back and forward, of no rows, one row and all rows."""
    values = rows(1)
    with contextlib.closing(open_source("p", *save(form, p=values))) as source:
        for start, stop in PLACES:
            assert_same_bits(source.read(start, stop), values[start:stop])


@only("npy", "npz", "npz compressed", "parquet list", "zarr", "safetensors", "safetensors shards")
def test_labels(form):
    p, q, labels = rows(2, "f4"), rows(1, "f4"), np.random.default_rng(3).integers(0, WIDTH, ROWS).astype("i4")
    if form == "parquet list":
        saved = parquet("flat", "labels", labels, row_group_size=50)
    elif form == "zarr":
        saved = zarr_array((20,), "labels", labels)
    else:
        swapped = form.startswith("np")  # .npy has a byte order, and .safetensors has one for all
        saved = FORMATS[form]("labels", labels.astype(labels.dtype.newbyteorder()) if swapped else labels)
    score(*npy(p=p, q=q), labels=saved, out="out.npy")
    assert_same_bits(np.load("out.npy")["nll_p"], fastkl.compare(p, q, labels=labels).nll_p)
    score("p.npy", labels=saved, measure="nll", out="out.npy")
    assert_same_bits(np.load("out.npy"), fastkl.nll(labels, p))


def read_back(name):
    """The columns of a result, or its one array."""
    if name.endswith(".zarr"):
        opened = pytest.importorskip("zarr").open(name, mode="r")
        return {name: opened[name][...] for name in opened.array_keys()} if hasattr(opened, "array_keys") else opened[...]
    table = pytest.importorskip("pyarrow.parquet").read_table(name)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return columns["value"] if list(columns) == ["value"] else columns


def test_results(suffix):
    p, q = rows(1, "f4"), rows(2, "f4")
    q[5, 0], p[7, 0] = 0, np.nan  # infinite, and invalid
    options = {"invalid": "nan", "normalize": True}
    files = npy(p=p, q=q)
    score(*files, out=f"a{suffix}", **options)
    assert_same_bits(read_back(f"a{suffix}"), fastkl.kl_divergence(p, q, **options))
    score(*files, out=f"b{suffix}", measure="compare", **options)
    fields = read_back(f"b{suffix}")
    expected = fastkl.compare(p, q, **options)._asdict()
    assert set(fields) == {name for name, x in expected.items() if x is not None}
    for name, values in fields.items():
        assert_same_bits(values, expected[name])
    assert sorted(os.listdir()) == [f"a{suffix}", f"b{suffix}", *files]


@pytest.mark.parametrize("shape", [(0, WIDTH), (WIDTH,), (1, WIDTH), (2, 3, WIDTH)])
def test_results_of_any_shape(suffix, shape):
    p = rows(1, shape=shape)
    score(*npy(p=p), measure="entropy", out=f"out{suffix}")
    expected = np.asarray(fastkl.entropy(p))
    assert_same_bits(read_back(f"out{suffix}"), expected if suffix == ".zarr" else expected.reshape(-1))


def test_large_results(suffix, monkeypatch):
    """Results of many chunks or row groups, from parts that end elsewhere."""
    writer = importlib.import_module(f"fastkl.batch.writers{suffix}")
    monkeypatch.setattr(writer, "GROUP" if suffix == ".parquet" else "CHUNK", 50)
    monkeypatch.setattr(output, "READ", 33 * 8)
    p = rows(1, shape=(5, 43, WIDTH))
    score(*npy(p=p), measure="entropy", out=f"out{suffix}")
    assert_same_bits(read_back(f"out{suffix}").reshape(5, 43), fastkl.entropy(p))
    if suffix == ".parquet":
        metadata = pytest.importorskip("pyarrow.parquet").read_metadata("out.parquet")
        assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [50, 50, 50, 50, 15]
    else:
        chunk_of("out").unlink()  # a lost chunk is not read as 0
        assert np.isnan(read_back("out.zarr")).any()


def test_full_disk_names_the_file(suffix):
    resource = pytest.importorskip("resource")
    values = np.random.default_rng(0).random(100_000)
    writer = importlib.import_module(f"fastkl.batch.writers{suffix}").writer
    write = writer(open_source("p", rows(1)), [], values.dtype, values.shape)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            write(Path(f"out{suffix}"), iter([values]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"out{suffix}" in str(error.value.filename)


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".zarr"], indirect=True)
@only("npz compressed", "parquet list", "parquet folder", "zarr", "zarr columns", "safetensors shards", "kld")
@pytest.mark.parametrize("measure", [pytest.param("kl", marks=slow), "compare"])
def test_resumed_results_have_the_same_bytes(form, suffix, measure, monkeypatch):
    saved = save(form, p=rows(0), q=rows(1))
    keys = ["id"] if form == "parquet list" and suffix == ".parquet" else []
    options = {"measure": measure, "keys": keys, "threads": 2}
    out, undisturbed = Path(f"out{suffix}"), Path(f"undisturbed{suffix}")
    expected = score(*saved, out=undisturbed, **options)
    for resume in False, True:
        with monkeypatch.context() as patch:
            call_after(1 + 2 * resume, interrupt, patch.setattr)
            with pytest.raises(KeyboardInterrupt):
                score(*saved, out=out, resume=resume, **options)
        assert not out.exists()
    read = []
    call = workers.Worker.__call__
    monkeypatch.setattr(workers.Worker, "__call__", lambda *args: (read.append(args[1].start), call(*args))[1])
    summary = score(*saved, out=out, resume=True, **options)
    assert min(read) > 0
    assert bytes_of(out) == bytes_of(undisturbed)
    assert not [*Path().glob("out*.*.*")]
    assert without_speed(summary) == without_speed(expected)


def chunk_of(name):
    files = Path(f"{name}.zarr").rglob("*")
    return max(x for x in files if x.is_file() and x.suffix != ".json" and not x.name.startswith(".z"))


CHANGES = {
    "truncated": ("npy", lambda: rewrite(Path("p.npy"), lambda data: data[:5000])),
    "emptied": ("npy", lambda: rewrite(Path("p.npy"), lambda _: b"")),
    "grown": ("npy", lambda: grow(Path("p.npy"))),
    "edited": ("npy", lambda: rewrite(Path("p.npy"), lambda data: data[:999] + b"\0" + data[1000:])),
    "made invalid": ("npy", lambda: rewrite(Path("p.npy"), lambda data: data[:9000] + b"\xff" * 56 + data[9056:])),
    "replaced": ("npy", lambda: Path(shutil.copy("p.npy", "copy")).replace("p.npy")),
    "safetensors truncated": ("safetensors", lambda: rewrite(Path("p.safetensors"), lambda data: data[:5000])),
    "safetensors edited": ("safetensors", lambda: rewrite(Path("p.safetensors"), lambda data: data[:-9] + bytes(9))),
    "shard truncated": ("safetensors shards", lambda: rewrite(Path("p-2.safetensors"), lambda data: data[:5000])),
    "shard replaced": ("safetensors shards", lambda: Path(shutil.copy("p-2.safetensors", "c")).replace("p-2.safetensors")),
    "index edited": ("safetensors shards", lambda: rewrite(Path("p.safetensors.index.json"), lambda data: data + b" ")),
    "kld truncated": ("kld", lambda: rewrite(Path("p.kld"), lambda data: data[:2500])),
    "kld emptied": ("kld", lambda: rewrite(Path("p.kld"), lambda _: b"")),
    "kld grown": ("kld", lambda: grow(Path("p.kld"))),
    "kld made invalid": ("kld", lambda: rewrite(Path("p.kld"), lambda data: data[:4000] + b"\xff" * 48 + data[4048:])),
    "npz truncated": ("npz", lambda: rewrite(Path("p.npz"), lambda data: data[: len(data) // 2])),
    "parquet truncated": ("parquet list", lambda: rewrite(Path("p.parquet"), lambda data: data[: len(data) // 2])),
    "parquet emptied": ("parquet list", lambda: rewrite(Path("p.parquet"), lambda _: b"")),
    "parquet edited": ("parquet list", lambda: rewrite(Path("p.parquet"), lambda data: data[:-50] + bytes(50))),
    "parquet grown": ("parquet list", lambda: rewrite(Path("p.parquet"), lambda data: data + b"more")),
    "file truncated": ("parquet folder", lambda: rewrite(Path("p/part-4.parquet"), lambda data: data[:100])),
    "file removed": ("parquet folder", lambda: Path("p/part-4.parquet").unlink()),
    "file added": ("parquet folder", lambda: shutil.copy("p/part-0.parquet", "p/part-7.parquet")),
    "chunk truncated": ("zarr", lambda: rewrite(chunk_of("p"), lambda data: data[:10])),
    "chunk removed": ("zarr", lambda: chunk_of("p").unlink()),
    "first chunk edited": ("zarr 2", lambda: rewrite(Path("p.zarr/0.0"), lambda data: data)),
    "first chunk replaced by an older one": ("zarr 2", lambda: os.utime("p.zarr/0.0", (1, 1))),
    "metadata edited": ("zarr 2", lambda: rewrite(Path("p.zarr/.zarray"), lambda data: data + b"\n")),
}


@pytest.mark.parametrize(("form", "do"), CHANGES.values(), ids=CHANGES, indirect=["form"])
@pytest.mark.parametrize(("place", "invalid"), [(0, "nan"), (1, "raise")])
def test_inputs_that_change(form, do, place, invalid, monkeypatch):
    """They end the run. The rows before are safe, and belong to the files as they were."""
    files = npy(q=rows(2))
    files[place:place] = save(form, p=rows(1))
    call_after(2, do, monkeypatch.setattr)
    options = {"out": "out.npy", "threads": 1, "invalid": invalid, "error": (ValueError, FileNotFoundError)}
    error = refused("p", *files, **options)
    if isinstance(error, ValueError):
        found = re.match(r"p.*was changed while it was read.*row (\d+)", str(error))
        assert 20 <= int(found[1]) <= ROWS
    else:
        assert str(error.filename).startswith("p")
    assert not Path("out.npy").exists()
    assert json.loads(Path("out.npy.checkpoint").read_text().splitlines()[0])["rows"] >= 20
    refused("p", *files, resume=True, **options)


@only("parquet folder", "zarr")
def test_results_inside_an_input_are_refused(form):
    files = [*save(form, p=rows(1)), *npy(q=rows(2))]
    for name in "out.npy", "more.parquet":
        message = r"is in the input .*: a result would be taken for a part of it"
        refused(message, *files, out=Path(files[0], name), error=OSError)
    inside = files[0] if form == "zarr" else Path(files[0], "part-0.parquet")
    refused("exists|is in the input", *files, out=inside, error=OSError)
    score(*files, out="out.npy")


@pytest.mark.parametrize(("module", "library", "files"), [("parquet", "pyarrow", "files"), ("zarr", "zarr", "arrays")])
def test_missing_library_is_named(module, library, files, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    for name in f"readers.{module}", f"writers.{module}", "readers.parquet_files":
        monkeypatch.delitem(sys.modules, f"fastkl.batch.{name}", raising=False)
    path = Path(f"p.{module}")
    path.touch() if module == "parquet" else path.mkdir()
    message = rf"{module.title()} {files} need {library}: pip install 'fastkl\[{module}\]'"
    refused(message, path, error=ImportError)
    refused(message, *npy(p=rows(1)), measure="entropy", out=f"out{path.suffix}", error=ImportError)


@only("npz", "parquet list", "zarr", "safetensors", "kld", "topk")
@pytest.mark.parametrize("count", [60, pytest.param(20_000 if NIGHT else 500, marks=slow)])
def test_damaged_files(form, count):
    """The command never crashes or needs much memory: it prints a line that names the file, or nothing if it can be read.

    A truncated file is always refused.
    """
    command, environment = program("damaged_files")
    run = subprocess.run([*command, form.split()[0], str(count)], capture_output=True, text=True, env=environment)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, f"{lines[-1:]}: {run.stderr}"
    *lines, memory = lines
    assert memory < 500e6
    assert len(lines) > 2 * count  # with the undamaged files
    refused = 0
    for (what, path), (same, status, stderr) in zip(lines[::2], lines[1::2], strict=True):
        message = f"{path}, {what}: {status} {stderr}"
        assert status in (0, 1), message
        refused += status
        if status == 0:
            assert not stderr, message
            assert same or "truncated" not in what, message
        else:
            assert what != "undamaged", message
            assert stderr.startswith("fastkl: "), message
            assert stderr.count("\n") == 1, message
            assert path in stderr, message
    assert refused > count // 2


WIDE = 1 << 15  # entries in a row


def sparse_npy(name, rows):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (rows, WIDE)})
    sparse(name, header.getvalue(), 4 * rows * WIDE)


def sparse_safetensors(name, rows):
    end = 4 * rows * WIDE
    text = json.dumps({"x": {"dtype": "F32", "shape": [rows, WIDE], "data_offsets": [0, end]}}).encode()
    sparse(name, len(text).to_bytes(8, "little") + text, end)


def sparse_kld(name, rows):
    """Chunks of three tokens have a row each."""
    sparse(name, header(3, WIDE, rows), rows * (12 + 8 + 2 * WIDE))


SPARSE = {".npy": sparse_npy, ".safetensors": sparse_safetensors, ".kld": sparse_kld}


def peak_of(suffix, rows):
    """The peak resident bytes while two files of that many rows are scored."""
    files = f"p{suffix}", f"q{suffix}"
    for name in files:
        SPARSE[suffix](name, rows)
    arguments = *files, "--out", "out.npy", "--json", "--threads=2", "--measure=kl", "--from-logits"
    said = output_of("run", json.dumps({"large": True, "peak": True}), *arguments)
    *_, summary, peak = map(json.loads, said.splitlines())
    assert (summary["rows"], summary["max"]) == (rows, 0)
    return int(peak)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="no sparse files here, or another measure of the peak")
@pytest.mark.parametrize("ending", SPARSE)
@pytest.mark.parametrize("growth", [2, pytest.param(7 if NIGHT else 4, marks=slow)])
def test_memory_does_not_grow_with_the_files(ending, growth):
    small = peak_of(ending, 1 << 9)
    large = peak_of(ending, 1 << (9 + growth))
    assert large <= 400_000_000
    assert large - small <= 16_000_000, "the size of one part of an operand"


def change_archive(entry, place, number):
    """Change a number in an entry of the archive's central directory."""
    data = bytearray(Path("p.npz").read_bytes())
    at = [found.start() for found in re.finditer(rb"PK\x01\x02", data)][entry] + place
    data[at : at + 4] = number.to_bytes(4, "little")
    Path("p.npz").write_bytes(data)


SIZE, OFFSET = 24, 42  # places in an entry


def test_impossible_size_in_an_archive_is_refused():
    """A member cannot be larger than its compressed bytes allow, whatever its header says."""
    np.savez_compressed("p.npz", x=np.zeros((10**6, 8), "f4"))  # deflate compresses zeros most
    with contextlib.closing(open_source("p", "p.npz")) as source:
        assert source.rows == 10**6
    change_archive(0, SIZE, 2**32 - 2)
    refused(r"p\.npz: is damaged: 4294967294 bytes cannot be", "p.npz")


def test_member_that_ends_early_is_refused():
    """Its checksum is that of the shorter data, and its size that of all rows."""
    np.save("x.npy", rows(1))
    whole = Path("x.npy").read_bytes()
    with zipfile.ZipFile("p.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", whole[: -8 * WIDTH])
    change_archive(0, SIZE, len(whole))
    refused(r"p\.npz: ends before row 20. does", "p.npz")


def test_overlapping_members_are_refused(capsys):
    """Not every version of zipfile refuses them; those since 3.13.5 warn of two members at one offset."""
    np.savez("p.npz", x=rows(1), y=rows(2))
    with zipfile.ZipFile("p.npz") as archive:
        offset = archive.getinfo("y.npy").header_offset
    for member, entry, moved in ("x", 1, 0), ("x", 1, 100), ("y", 0, offset), ("y", 0, offset + 100):
        np.savez("p.npz", x=rows(1), y=rows(2))
        change_archive(entry, OFFSET, moved)
        assert main(["score", f"p.npz:{member}", "--measure", "entropy"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"fastkl: p.npz:{member}: is damaged: another member begins in the bytes ")


@pytest.mark.parametrize(
    ("size", "written"),  # as Thrift's compact protocol writes it
    [(2**31 - 1, b"\xfe\xff\xff\xff\x0f"), (2**62, b"\x80" * 9 + b"\x01"), (-1, b"\x01"), (300, b"\xd8\x04")],
)
def test_page_larger_than_its_column_is_refused(size, written):
    """Parquet's library would clear that much memory."""
    header = b"\x15\x00\x15\xc8\x01\x15"  # a data page of 100 bytes unpacked, and ...
    chunk = parquet_headers.Chunk("x", 0, 120, 100)
    with pytest.raises(ValueError, match=rf"the page at 0 of column 'x' says that it is {size} bytes long, 100 unpacked"):
        parquet_headers.check_pages(io.BytesIO(header + written + bytes(101)), chunk)
    parquet_headers.check_pages(io.BytesIO(header + b"\xde\x01" + bytes(113)), chunk)  # 111 bytes
