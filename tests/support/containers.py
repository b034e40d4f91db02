"""Other libraries' containers of a matrix. Making one skips the test where the library is missing."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastkl import call
from support.checks import ENTRY, distributions, with_entry

P, Q = distributions(1), distributions(2)
BAD = with_entry((3, 4), -1, P)
NEGATIVE = f" = -1.0: {ENTRY}"  # what an error says of such an entry
FILL = "fill missing values, or leave their rows out, before the call"


class Container(NamedTuple):
    """A kind of container."""

    module: str
    build: Callable[[Any, np.ndarray], Any]  # from the module and a matrix
    result: str  # the class of a result with one axis

    def __call__(self, values):
        """The container of a matrix."""
        return self.build(pytest.importorskip(self.module), values)


def _blocks(pd, values):
    """A frame with a block of memory for each column."""
    return pd.DataFrame({j: column.copy() for j, column in enumerate(values.T)}, copy=False)


def _lists(pa, values):
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _tensors(pa, values):
    """As the start of a longer array, because pyarrow makes none of no rows."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.concatenate([values, np.ones((1, 7))]))[: len(values)]


def _lists_in_chunks(pa, values):
    return pa.chunked_array([(array := _lists(pa, values))[:2], array[2:2], array[2:]])


def _series_in_chunks(pl, values):
    return pl.concat([pl.Series("name", values[:3]), pl.Series("name", values[3:])], rechunk=False)


pandas_frame = Container("pandas", lambda pd, values: pd.DataFrame(values), "Series")
pandas_blocks = Container("pandas", _blocks, "Series")
polars_frame = Container("polars", lambda pl, values: pl.DataFrame(values), "Series")
arrow_array = Container("pyarrow", _lists, "DoubleArray")
arrow_chunks = Container("pyarrow", _lists_in_chunks, "ChunkedArray")
dask_array = Container("dask.array", lambda da, values: da.from_array(values, chunks=(2, 3)), "Array")

# JAX, which has no float64 by default, has tests of its own.
CONTAINERS = {
    "torch": Container("torch", lambda torch, values: torch.from_numpy(values), "Tensor"),
    "pandas": pandas_frame,
    "pandas, many blocks": pandas_blocks,
    "pandas, nullable": Container("pandas", lambda pd, values: pd.DataFrame(values).astype("Float64"), "Series"),
    "polars frame": polars_frame,
    "polars series": Container("polars", lambda pl, values: pl.Series("name", values), "Series"),
    "polars chunks": Container("polars", _series_in_chunks, "Series"),
    "arrow": arrow_array,
    "arrow tensors": Container("pyarrow", _tensors, "DoubleArray"),
    "arrow chunks": arrow_chunks,
    "xarray": Container("xarray", lambda xr, values: xr.DataArray(values), "DataArray"),
    "dask": dask_array,
    "array API": Container("array_api_strict", lambda xp, values: xp.asarray(values), "Array"),
}


def recorded(monkeypatch):
    """A list of the requests that reach `call.run` from now on, where all operands are NumPy's."""
    received = []
    run = call.run

    def record(request):
        received.append(request)
        return run(request)

    monkeypatch.setattr(call, "run", record)
    return received
