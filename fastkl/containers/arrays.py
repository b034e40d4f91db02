"""Arrays of other libraries: torch, JAX, and every library with DLPack or the array API.

A view is a NumPy array of an operand's memory; the result is wrapped, where possible without a copy.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from .. import call
from ..call import Array, Request
from .operands import Run, by_name, kind, refused

_CPU: Final = (1, 3, 11)  # DLPack's devices whose memory this process can read: CPU, and pinned for CUDA, for ROCm


def _run(
    request: Request,
    run: Run,
    own: Callable[[Any], bool],
    view: Callable[[str, Any], Array],
    wrap: Callable[[Array, Any], Any],
) -> Any:
    """What an adapter does. `own` tells its library's arrays; `wrap` makes a result one, of the kind of an operand."""
    operands, out = by_name(request), request.out
    request = request.replace(**{name: view(name, x) for name, x in operands.items() if own(x)})
    if out is not None:
        run(request.replace(out=view("out", out) if own(out) else out))
        return out
    result, like = run(request), next(x for x in operands.values() if own(x))
    if request.measure == "compare":  # The array API has no index of the first axis alone, by which to find a field.
        return [wrap(np.asarray(field), like) for field in result]
    return wrap(np.asarray(result), like)


def torch(request: Request, run: Run) -> Any:
    """A tensor, for tensors on the CPU."""
    library = sys.modules["torch"]
    return _run(request, run, lambda x: isinstance(x, library.Tensor), _torch_view, lambda x, _: library.from_numpy(x))


def _torch_view(name: str, tensor: Any) -> Array:
    library = sys.modules["torch"]
    if tensor.layout != library.strided or tensor.is_nested:
        layout = "nested" if tensor.is_nested else tensor.layout
        raise TypeError(f"{name} is a tensor of layout {layout}: must be dense (to_dense() makes it so)")
    if tensor.device.type != "cpu":
        raise TypeError(f"{name} is a tensor on device {tensor.device}: must be on the CPU ({name}.cpu() copies it there)")
    if tensor.requires_grad:
        raise TypeError(f"{name} requires grad: fastkl computes no gradients; {name}.detach() is accepted")
    with refused(f"{name} is a tensor of {tensor.dtype}"):  # quantised, 8-bit floats, fake, of a transform such as vmap
        resolved = tensor.resolve_conj().resolve_neg()
        if resolved.dtype != library.bfloat16:
            return np.asarray(resolved.numpy())
        bits: Array = resolved.view(library.int16).numpy()
        return bits.view(call.BFLOAT16)


def jax(request: Request, run: Run) -> Any:
    """A JAX array, for JAX arrays on the CPU."""
    library = sys.modules["jax"]
    return _run(request, run, lambda x: isinstance(x, library.Array), _jax_view, lambda x, _: library.numpy.asarray(x))


def _jax_view(name: str, array: Any) -> Array:
    """The values."""
    library = sys.modules["jax"]
    if isinstance(array, library.core.Tracer):
        advice = "call fastkl outside of jit, grad and vmap, or by jax.pure_callback"
        raise TypeError(f"{name} is traced by JAX and has no values yet: {advice}")
    with refused(f"{name} is a JAX array of {array.dtype}"):
        platforms = {device.platform for device in array.devices()}
        if platforms == {"cpu"}:
            return np.asarray(array)
    raise TypeError(f"{name} is an array on {', '.join(sorted(platforms))}: must be on the CPU (jax.device_put)")


def is_array(cls: type) -> bool:
    """Whether objects of a class have the array API or DLPack, and are not NumPy's."""
    return not issubclass(cls, (np.ndarray, np.generic)) and (
        hasattr(cls, "__array_namespace__") or hasattr(cls, "__dlpack__")
    )


def array_api(request: Request, run: Run) -> Any:
    """An array of the operands' namespace, or NumPy's where they have DLPack alone."""
    return _run(request, run, lambda x: is_array(type(x)), _array_api_view, _array_api_wrap)


def _array_api_view(name: str, array: Any) -> Array:
    """The values by DLPack, on which array libraries agree."""
    with refused(f"{name} is a {kind(array)}"):
        if not hasattr(array, "__dlpack__"):
            return np.asarray(array)
        device = array.__dlpack_device__()
        if device[0] in _CPU:
            if hasattr(array, "__array__") or hasattr(array, "__buffer__"):
                with contextlib.suppress(BufferError, RuntimeError):  # read-only memory, and dtypes that DLPack lacks
                    return np.from_dlpack(array)
                return np.asarray(array)
            return np.from_dlpack(array)
    raise TypeError(f"{name} is a {kind(array)} on device {getattr(array, 'device', device)}: must be on the CPU")


def _array_api_wrap(result: Array, like: Any) -> Any:
    if not hasattr(like, "__array_namespace__"):
        return result[()]
    return like.__array_namespace__().asarray(result, device=like.device)
