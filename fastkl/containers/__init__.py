"""Operands of other libraries: `run` finds which library they are of, and calls its adapter. Here is the list of adapters.

An adapter takes a request and returns the user's result. It passes the values to `call.run`, or to what stands in for it,
as NumPy arrays, without a copy, and makes a container of the operands' kind from the result. No library is imported: where
one of its objects is an operand, the user has imported it. Another library is a module here and a line in the list.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from .. import call
from ..call import Request
from . import arrays, arrow, dask, frames, xarray
from .operands import Run, as_array, by_name, kind

Adapter: TypeAlias = Callable[[Request, Run], Any]

_COLUMN: Final = "pass one of its columns, of a fixed-size list type, or its to_pandas()"
_SPARSE: Final = "sparse matrices are not supported; toarray() makes it dense"

# By the library and the name of a class or of one of its bases. A string says what to do instead of passing the object.
_ADAPTERS: Final[dict[tuple[str, str], Adapter | str]] = {
    ("torch", "Tensor"): arrays.torch,
    ("jaxlib", "ArrayImpl"): arrays.jax,
    ("jax", "Tracer"): arrays.jax,
    ("pyarrow", "Array"): arrow.pyarrow,
    ("pyarrow", "ChunkedArray"): arrow.pyarrow,
    ("pyarrow", "Table"): _COLUMN,
    ("pyarrow", "RecordBatch"): _COLUMN,
    ("polars", "Series"): frames.polars,
    ("polars", "DataFrame"): frames.polars,
    ("polars", "LazyFrame"): "call its collect() first",
    ("pandas", "Series"): frames.pandas,
    ("pandas", "DataFrame"): frames.pandas,
    ("dask", "Array"): dask.run,
    ("dask", "FrameBase"): "pass its to_dask_array(lengths=True)",
    ("xarray", "DataArray"): xarray.run,
    ("xarray", "Dataset"): "pass one of its variables, a DataArray",
    ("scipy", "spmatrix"): _SPARSE,
    ("scipy", "sparray"): _SPARSE,
}

# The other libraries' rows have names, or are in pieces, and how labels would be matched to them is not defined.
_ARRAYS: Final = (arrays.torch, arrays.jax, arrays.array_api)
_TAKE_LABELS: Final = (*_ARRAYS, dask.run)


class _Views(Exception):  # noqa: N818 - no error
    """Ends a run of an adapter when it has a request with views."""


def arrays_of(request: Request) -> dict[str, Any]:
    """The request's operands as NumPy arrays, if a measure would take them together; its errors if not."""

    def end(views: Request) -> Any:
        raise _Views(views)

    try:
        run(request, end)
    except _Views as ended:
        return {name: as_array(name, x) for name, x in by_name(ended.args[0]).items()}
    raise AssertionError("an adapter has returned without a run")


def array_of(name: str, values: Any) -> Any:
    """The values as a NumPy array, if they are in another library's container; the values themselves if not."""
    cls: Any = type(values)
    _, adapter = _of_class(cls)
    if isinstance(adapter, str):
        raise TypeError(f"{name} is a {kind(values)}: {adapter}")
    return values if adapter is None else arrays_of(Request("entropy", values))["p"]


def run(request: Request, run: Run | None = None, takes_frames: bool = True) -> Any:
    """The result of a request, in a container of the operands' library. `run` stands in for `call.run`.

    If it takes no frames, containers whose rows have names, or are in pieces, are an error.
    """
    run = run or call.run
    operands = by_name(request)
    if request.measure == "compare":
        operands.pop("labels", None)  # p and q have the result's kind
    adapters: dict[str, tuple[str, Adapter]] = {}
    for name, operand in operands.items():
        cls: Any = type(operand)
        library, adapter = _of_class(cls)
        if isinstance(adapter, str):
            raise TypeError(f"{name} is a {kind(operand)}: {adapter}")
        if adapter is not None:
            adapters[name] = library, adapter
    if not adapters:
        return run(request)
    if len(set(adapters.values())) > 1:
        one, other = adapters
        wanted = "must be of one library, or NumPy arrays"
        raise TypeError(f"{one} is a {kind(operands[one])} and {other} a {kind(operands[other])}: {wanted}")
    name, (_, adapter) = next(iter(adapters.items()))
    takes = _TAKE_LABELS if request.measure in ("nll", "compare") else None if takes_frames else _ARRAYS
    if takes is not None and adapter not in takes:
        advice = f"{request.measure}{'' if takes_frames else ' of a TopK'} takes NumPy arrays, as its to_numpy() gives them"
        raise TypeError(f"{name} is a {kind(operands[name])}: {advice}")
    return adapter(request, run)


@functools.lru_cache
def _of_class(cls: type) -> tuple[str, Adapter | str | None]:
    """The library that a class is of, and the adapter or the advice for its objects, if any."""
    for base in cls.__mro__:
        library = base.__module__.partition(".")[0]
        if library == "numpy":
            return library, None
        entry = _ADAPTERS.get((library, base.__name__))
        if entry is not None:
            return library.removesuffix("lib"), entry  # jaxlib has the arrays of jax
    library = cls.__module__.partition(".")[0]
    if arrays.is_array(cls):
        return library, arrays.array_api
    return ("pyarrow", arrow.pyarrow) if arrow.is_column(cls) else (library, None)
