"""Parquet: columns, keys beside the values, columns and folders that are refused, headers and checksums."""

import gc
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.batch_files import FORMATS, ROWS, WIDTH, arrow, npy, refused, rows, save_parquet, small_parts
from support.measures import assert_same_bits

import fastkl
from fastkl.batch import results, score
from fastkl.batch.readers import open_source, parquet_headers

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
writer = pytest.importorskip("fastkl.batch.writers.parquet")


_in_small_parts = small_parts(17 * WIDTH * 8, 5 * WIDTH * 8)  # 17 rows and 5 rows of float64


def group_lengths(name):
    metadata = pq.read_metadata(name)
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def test_columns_without_a_name():
    """The only list column, or the only column, needs none. A column of numbers can be one distribution."""
    labels = np.arange(ROWS) % WIDTH
    rows_alone = save_parquet("p.parquet", {"id": labels, "x": arrow(rows(1), "list")})
    labels_alone = save_parquet("labels.pq", {"id": labels})
    score(rows_alone, labels=labels_alone, measure="nll", out="out.npy")
    assert_same_bits(np.load("out.npy"), fastkl.nll(labels, rows(1)))
    p = rows(1, shape=(1, WIDTH))[0]
    score(save_parquet("p.parquet", {"x": p}, row_group_size=3), *npy(q=rows(2)), out="out.npy")
    assert_same_bits(np.load("out.npy"), fastkl.kl_divergence(p, rows(2)))


def test_resuming_skips_row_groups(monkeypatch):
    source = open_source("p", FORMATS["parquet list"]("p", rows(1)))
    asked = []
    batches = type(source).batches  # type: ignore[attr-defined]
    monkeypatch.setattr(type(source), "batches", lambda *args: (asked.append(args[2]), batches(*args))[1])
    assert_same_bits(source.read(125, 140), rows(1)[125:140])
    assert asked == [12]  # of 10 rows each
    source.close()


def test_large_row_group_is_read_in_batches():
    """Only a few batches of 4 MB are in memory, with the reader's own data: less than half of 40 MB."""
    values = rows(1, shape=(20_000, 500)).astype("f4")
    columns = {"x": arrow(values, "fixed")}
    name = save_parquet("p.parquet", columns, row_group_size=len(values), use_dictionary=False)
    assert group_lengths(name) == [len(values)]
    gc.collect()
    source, before = open_source("p", name), pa.total_allocated_bytes()
    most = 0
    for start in range(0, len(values), 1000):
        assert_same_bits(source.read(start, start + 1000), values[start : start + 1000])
        most = max(most, pa.total_allocated_bytes() - before)
    source.close()
    assert 0 < most < 20 << 20


def test_keys(monkeypatch):
    """Columns of any type, in the order of `keys`, stand beside the values of their rows."""
    monkeypatch.setattr(writer, "GROUP", 64)
    columns = {
        "name": [None if i % 5 == 0 else f"row {i}" for i in range(ROWS)],
        "x": arrow(rows(1), "list"),
        "day": pa.array(np.arange(ROWS).astype("i4"), pa.int32()).cast(pa.date32()),
        "kind": pa.array([str(i % 3) for i in range(ROWS)]).dictionary_encode(),
        "a.b": pa.array([{"c": i, "d": [i] * (i % 3)} for i in range(ROWS)]),
        "a": np.arange(ROWS),
    }
    table = pa.table(columns)
    os.mkdir("p")
    for i, (start, stop) in enumerate([(0, 100), (100, 101), (101, ROWS)]):
        pq.write_table(table.slice(start, stop - start), f"p/{i}.parquet", row_group_size=30)
    keys = ["kind", "name", "a.b", "day", "a"]
    score("p:x", *npy(q=rows(2)), out="out.parquet", keys=keys)
    result = pq.read_table("out.parquet")
    assert result.column_names == [*keys, "value"]
    for key in keys:
        assert result[key].type == table[key].type
        assert result[key].to_pylist() == table[key].to_pylist()
    assert_same_bits(result["value"].to_numpy(), fastkl.kl_divergence(rows(1), rows(2)))


def test_wide_keys_make_small_row_groups(monkeypatch):
    monkeypatch.setattr(writer, "GROUP_BYTES", 20 * WIDTH * 8)
    p = save_parquet("p.parquet", {"x": arrow(rows(1), "fixed")})
    score(p, measure="entropy", out="out.parquet", keys=["x"])
    assert group_lengths("out.parquet")[:2] == [20, 20]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["other"], "1.parquet: has no column 'other': it has 'id', 'x', 'kl'"),
        (["id"], "2.parquet: column 'id' has type double: must have type int64, as in "),
        (["x", "x"], "keys: 'x' would be the name of two columns"),
        (["kl"], "keys: 'kl' would be the name of two columns"),
    ],
)
def test_missing_keys_are_refused(keys, message, monkeypatch):
    """They are refused before anything is computed."""
    os.mkdir("p")
    for i in (1, 2):
        columns = {"id": np.arange(ROWS) * (1 if i == 1 else 0.5), "x": arrow(rows(1), "list"), "kl": np.zeros(ROWS)}
        save_parquet(f"p/{i}.parquet", columns)
    np.save("q.npy", np.tile(rows(2), (2, 1)))
    monkeypatch.setattr(results.Results, "update", lambda *_: pytest.fail("something was computed"))
    with pytest.raises(ValueError, match=r"column|keys") as error:
        score("p:x", "q.npy", measure="compare", out="out.parquet", keys=keys)
    assert message in str(error.value)
    assert sorted(os.listdir()) == ["p", "q.npy"]


def test_keys_need_parquet_of_as_many_rows():
    npy(p=rows(1), q=rows(2))
    refused(r"keys: only where p is Parquet, and p.npy is not", "p.npy", "q.npy", out="out.parquet", keys=["id"])
    one = save_parquet("p.parquet", {"x": arrow(rows(1)[:1], "list"), "id": [7]})
    message = f"keys: p.parquet has 1 rows, and the result {ROWS}: must be as many"
    refused(message, one, "q.npy", out="out.parquet", keys=["id"])
    np.save("q.npy", rows(2)[0])
    score(one, "q.npy", out="out.parquet", keys=["id"])
    assert pq.read_table("out.parquet")["id"].to_pylist() == [7]


DOUBLES = pa.list_(pa.float64())


def extension(kind, storage):
    return pa.ExtensionArray.from_storage(kind, storage)


@pytest.mark.parametrize(
    ("entry", "kind", "message"),
    [
        (None, DOUBLES, "is null: fill missing values, or leave their rows out"),
        ([0.5, None] + [0.1] * 5, DOUBLES, "is null in entry 1: fill missing"),
        ([0.5, 0.5], DOUBLES, "has 2 entries: must have 7, as the first row has"),
        ([0.5, 0.5], pa.large_list(pa.float32()), "has 2 entries: must have 7"),
        (None, pa.list_(pa.float64(), WIDTH), "is null"),
        ([None] + [0.1] * 6, pa.list_(pa.float64(), WIDTH), "is null in entry 0"),
    ],
)
def test_nulls_and_wrong_lengths_are_refused(entry, kind, message):
    """The error names the file and the row, counted in the file and in all files."""
    lists = rows(1).tolist()
    save_parquet("p.parquet", {"x": pa.array([*lists[:17], entry, *lists[18:]], kind)}, row_group_size=10)
    refused(f"^p.parquet: row 17 {message}", "p.parquet", *npy(q=rows(2)), out="out.npy")
    os.mkdir("p")
    save_parquet("p/0.parquet", {"x": pa.array(lists, kind)})
    shutil.move("p.parquet", "p/1.parquet")
    refused(f"^p/1.parquet: row 17 [(]row {ROWS + 17} of all[)] {message}", "p")


def test_unsuitable_columns_are_refused():
    save_parquet("none.parquet", {"x": pa.array([], DOUBLES)})
    refused(r"none.parquet: has no rows", "none.parquet")
    save_parquet("first.parquet", {"x": pa.array([None, *rows(1).tolist()])})
    refused(r"first.parquet: row 0 is null", "first.parquet")
    save_parquet("labels.parquet", {"x": pa.array([3, None, 4])})
    refused(r"labels.parquet: row 1 is null", *npy(p=rows(2)[:3]), labels="labels.parquet", measure="nll")
    columns = {
        "text": pa.array(["a", "b"]),
        "kind": pa.array(["a", "b"]).dictionary_encode(),
        "decimal": pa.array([1, 2], pa.decimal128(5)),
        "texts": pa.array([["a"], ["b"]]),
        "deep": pa.array([[[1.0]], [[2.0]]]),
        "struct": pa.array([{"a": 1}, {"a": 2}]),
        "decimals": pa.array([[1, 2], [3, 4]], pa.list_(pa.decimal256(50))),
        "times": pa.array([[1, 2], [3, 4]], pa.list_(pa.timestamp("s"))),
        "spans": pa.array([[1, 2], [3, 4]], pa.list_(pa.duration("s"), 2)),
        "nothing": pa.array([[None], [None]]),
        "map": pa.array([[("a", 0.5)], [("b", 1.0)]], pa.map_(pa.string(), pa.float64())),
        "matrices": extension(
            pa.fixed_shape_tensor(pa.float64(), [1, 2]), pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float64(), 2))
        ),
        "view": pa.array([[1.0], [2.0]], pa.list_view(pa.float64())),
        "opaque": extension(pa.opaque(pa.float64(), "kind", "vendor"), pa.array([1.0, 2.0])),
        "flags": extension(pa.bool8(), pa.array([1, 0], pa.int8())),
    }
    save_parquet("all.parquet", columns)
    for name in columns:
        message = r"^all.*has a column of type .*: must be lists of numbers, or numbers"
        refused(message, f"all.parquet:{name}", error=TypeError)
    for column in "", ":other":
        refused("it has 'text', 'kind', 'decimal', 'texts', 'deep', 'struct', 'decimals', ", f"all.parquet{column}")


def test_tensors_and_dictionaries_are_read():
    """They are other ways to store the same numbers."""
    lists = pa.array(rows(1).tolist(), pa.list_(pa.float64(), WIDTH))
    save_parquet("p.parquet", {"id": range(ROWS), "x": extension(pa.fixed_shape_tensor(pa.float64(), [WIDTH]), lists)})
    encoded = pa.FixedSizeListArray.from_arrays(lists.flatten().dictionary_encode(), WIDTH)
    labels = pa.array(np.arange(ROWS) % WIDTH).dictionary_encode()
    save_parquet("q.parquet", {"x": encoded, "labels": labels})
    for name in "p.parquet", "q.parquet:x":
        score(name, measure="nll", labels="q.parquet:labels", out="out.npy")
        assert_same_bits(np.load("out.npy"), fastkl.nll(np.arange(ROWS) % WIDTH, rows(1)))


def test_folders_of_other_files_are_refused():
    os.mkdir("p")
    refused(r"p: is a folder without a .parquet file, and no Zarr array", "p")
    save_parquet("p/0.parquet", {"x": arrow(rows(1), "list")})
    save_parquet("p/1.parquet", {"x": arrow(rows(1, "f4"), "list")})
    refused(r"1.parquet: column 'x' has type list<.*float>: must have that of .*0.parquet", "p")
    save_parquet("p/1.parquet", {"y": arrow(rows(1), "list")})
    refused(r"1.parquet: has no column 'x': it has 'y'", "p")
    os.mkdir("p/year=1")
    refused("p: has the folder year=1 in it: name a folder of files, or one of them", "p")


@pytest.mark.parametrize("keywords", [{}, {"use_dictionary": False}, {"data_page_version": "2.0", "data_page_size": 500}])
def test_parquet_headers_are_read_as_by_pyarrow(keywords):
    """Rows and positions of columns are those that pyarrow reads. The pages fill the columns, with any statistics."""
    columns = {"text": ["x" * 3000] * ROWS, "x": arrow(rows(1), "list"), "none": [None] * ROWS, "flag": [True] * ROWS}
    path = save_parquet("p.parquet", columns, row_group_size=50, write_page_index=True, **keywords)
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


def test_checksums_of_pages_are_verified():
    """In a file with checksums, one changed bit of a number is an error."""
    keywords = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    path = Path(save_parquet("p.parquet", {"x": arrow(rows(1), "fixed")}, **keywords))
    data = bytearray(path.read_bytes())
    data[data.index(rows(1)[100].astype("<f8").tobytes())] ^= 1
    path.write_bytes(data)
    refused(r"p.parquet: is damaged in row 0 or after it: .*(CRC|checksum)", path, normalize=True)
