"""Zarr: leading axes, chunks, and arrays that are refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batch_files import ROWS, WIDTH, refused, rows, small_parts, zarr_2, zarr_array, zarr_group
from support.measures import assert_same_bits

import fastkl
from fastkl.batch import score
from fastkl.batch.readers import open_source

zarr = pytest.importorskip("zarr")
reader = pytest.importorskip("fastkl.batch.readers.zarr")


_in_small_parts = small_parts(17 * WIDTH * 8, 1 << 21)  # 17 rows of float64
SINGLE = pytest.param((1, 1, 1, 1), marks=pytest.mark.slow)  # 630 files


@pytest.mark.parametrize("chunks", [(2, 3, 5, 7), (1, 1, 4, 3), (1, 4, 6, 7), (3, 5, 6, 7), SINGLE])
def test_leading_axes(chunks):
    p, q = rows(1, shape=(3, 5, 6, WIDTH)), rows(2, shape=(3, 5, 6, WIDTH))
    score(zarr_array(chunks, "p", p), zarr_array(chunks, "q", q), out="out.zarr")
    assert_same_bits(zarr.open_array("out.zarr", mode="r")[...], fastkl.kl_divergence(p, q))


@pytest.mark.parametrize(
    ("shape", "chunks", "together"),
    [((ROWS, WIDTH), (10, 3), 10), ((3, 4, 6, WIDTH), (1, 2, 6, 7), 12), ((8, 4, WIDTH), (4, 1, 7), 16), ((9,), (4,), 1)],
)
def test_parts_end_where_chunks_do(shape, chunks, together):
    """Each chunk is then read once."""
    source = open_source("p", zarr_array(chunks, "p", rows(1, shape=shape)))
    assert source.chunk_rows == together


@given(st.lists(st.integers(1, 5), max_size=4), st.data())
def test_boxes_of_a_range(shape, data):
    """Boxes hold the whole range in order; there are at most two for each axis except the last."""
    places = np.arange(math.prod(shape)).reshape(shape)
    start = data.draw(st.integers(0, places.size)) if shape else 0
    stop = data.draw(st.integers(start, places.size)) if shape else 1
    boxes = list(reader.boxes(start, stop, tuple(shape)))
    found = [places[box].reshape(-1) for box in boxes]
    assert np.concatenate([*found, []]).tolist() == list(range(start, stop))
    assert len(boxes) <= max(1, 2 * len(shape) - 1)


def test_unsuitable_arrays_are_refused():
    group = zarr_group("group.zarr", rows(1)).rpartition(":")[0]
    for member in "", ":a", ":other", ":a/z":
        refused(f"{group}{member}: name one of its arrays after a colon: it has 'a/x', 'a/y'", group + member)
    refused("has dtype complex128: must be float64", zarr_array((5, 5), "complex", rows(1).astype("c16")), error=TypeError)
    zarr.create((10**9, WIDTH), chunks=(10**8, WIDTH), dtype="f8", store="large.zarr", **zarr_2())
    refused(r"its chunks, of shape .100000000, 7., take 5600000000 bytes each", "large.zarr")
    metadata = Path(zarr_array((5, 5), "pickle", rows(1), zarr_format=2), ".zarray")
    with_filter = json.loads(metadata.read_text()) | {"filters": [{"id": "pickle", "protocol": 5}]}
    metadata.write_text(json.dumps(with_filter))
    refused(r"pickle.zarr: holds pickled objects, which are never read", "pickle.zarr", error=TypeError)


def test_missing_chunk_is_the_fill_value():
    """Zarr leaves out chunks of the fill value; one that was missing from the start is no change."""
    name = zarr_array((10, WIDTH), "p", rows(1), zarr_format=2)
    Path(name, "3.0").unlink()
    score(name, measure="entropy", invalid="nan", out="out.npy")
    assert np.flatnonzero(np.isnan(np.load("out.npy"))).tolist() == list(range(30, 40))


def test_short_blosc_chunk_is_refused():
    """Blosc itself would read the memory behind it."""
    zarr_array((50, WIDTH), "p", rows(1), compressors={"id": "blosc"}, zarr_format=2)
    chunk = Path("p.zarr/2.0")
    data = chunk.read_bytes()
    for size in 0, 10, 16, len(data) - 1:
        chunk.write_bytes(data[:size])
        refused(r"p.zarr: is damaged in rows .*: chunk 2.0 has .* bytes, and says", "p.zarr")
    chunk.write_bytes(data)
    score("p.zarr", measure="entropy")


XARRAY = [
    ({"dtype": "u2", "scale_factor": 1e-4}, "scale_factor = 0.0001"),
    ({"dtype": "i4", "scale_factor": 1.0, "add_offset": -1.0}, "add_offset = -1.0"),
    ({"dtype": "u1", "_FillValue": 255}, "_FillValue = 255"),
    ({"dtype": "f4", "_FillValue": -1.0}, "_FillValue = "),
    ({"dtype": "f8", "missing_value": 2.0, "_FillValue": 2.0}, "_FillValue = "),
    ({"dtype": "i1", "_Unsigned": "true"}, "_Unsigned = 'true'"),
    ({"units": "days since 2000-01-01"}, "units = 'days since 2000-01-01"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("encoding", "attribute"), XARRAY)
def test_encodings_of_xarray_are_refused_by_name(encoding, attribute, version):
    xr = pytest.importorskip("xarray")
    if version == 3 and not hasattr(zarr.storage, "LocalStore"):
        pytest.skip("needs zarr 3")
    data = xr.DataArray(rows(1).round(2), dims=("row", "entry"), name="p").to_dataset()
    if "_Unsigned" in encoding:  # which xarray writes as an attribute
        data, encoding = (100 * data).astype("i1"), {}
        data.p.attrs["_Unsigned"] = "true"
    if "units" in encoding:
        data["p"] = ("row", "entry"), np.full((ROWS, WIDTH), np.datetime64("2000-01-01", "ns"))
    data.to_zarr("p.zarr", zarr_format=version, encoding={"p": encoding})
    refused(rf"p.zarr: has the attribute {attribute}", "p.zarr", normalize=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [2, 3])
def test_coordinates_of_xarray(version):
    """They are no arrays of rows. The operands' are compared, as those of DataArrays in memory."""
    xr = pytest.importorskip("xarray")
    if version == 3 and not hasattr(zarr.storage, "LocalStore"):
        pytest.skip("needs zarr 3")
    names = list("abcdefg")
    for name, entries in {"p": names, "q": names, "other": names[::-1]}.items():
        coordinates = {"entry": entries, "row": np.arange(ROWS)}
        data = xr.DataArray(rows(1), dims=("row", "entry"), coords=coordinates, name=name)
        data.attrs["units"] = "percent"
        data.to_dataset().to_zarr(f"{name}.zarr", zarr_format=version)
    assert score("p.zarr", "q.zarr")["max"] == 0
    assert score("p.zarr:p", "q.zarr")["max"] == 0
    refused("different coordinates along axis -1, a and g at position 0", "p.zarr", "other.zarr")
