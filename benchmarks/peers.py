"""The contenders: the package that each needs, and its functions of rows. Knows nothing of time and data.

A function takes the operands of a measure, matrices with rows along axis 1, and returns a value for each row; a comparison
returns fastkl's tuple of them. Each is what a user of the package would write; a comment says where there was a choice.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from typing import Any

import numpy as np
from cases import DIVERGENCES, MEASURES

import fastkl

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
Functions = dict[str, Function]

UNUSABLE: dict[str, str] = {}  # installed, but could not be loaded: why


@dataclass(frozen=True)
class Peer:
    """A contender. `load` imports its package and returns a function of each measure, with a given number of threads."""

    name: str
    package: str
    load: Callable[[int], Functions]
    parallel: bool = False
    whole: bool = True  # False: it does a part of the work, in cache, and does not return the measure

    @property
    def version(self) -> str | None:
        """The version of the installed package, or None."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    def functions(self, threads: int) -> Functions:
        """Return its functions; none if the package is missing or does not work here, which `missing` reports."""
        if self.version is None or self.name in UNUSABLE:
            return {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.load(threads)
        except Exception as error:  # each package has errors of its own
            UNUSABLE[self.name] = f"{type(error).__name__}: {error}"
            return {}


def _fastkl_function(measure: str) -> Function:
    name, _, alpha = measure.removesuffix(")").partition("(")
    function: Function = getattr(fastkl, name)
    return partial(function, alpha=float(alpha)) if alpha else function


def _fastkl(threads: int) -> Functions:
    return {measure: partial(_fastkl_function(measure), threads=threads) for measure in (*MEASURES, *DIVERGENCES)} | {
        "kl_from_logits": partial(fastkl.kl_divergence, from_logits=True, threads=threads),
        "labels_from_logits": partial(fastkl.nll, from_logits=True, threads=threads),
        "entropy_from_logits": partial(fastkl.entropy, from_logits=True, threads=threads),
        "compare_from_logits": partial(fastkl.compare, from_logits=True, threads=threads),
    }


def _from_logits(log_softmax: Function, exp: Function, log: Function) -> Functions:
    """Return the measures of logits by their definitions, in terms of log_softmax, of NumPy arrays or tensors."""

    def kl_divergence(p: Any, q: Any) -> Any:
        a, b = log_softmax(p), log_softmax(q)
        return (exp(a) * (a - b)).sum(1)

    def entropy(p: Any) -> Any:
        a = log_softmax(p)
        return -(exp(a) * a).sum(1)

    def compare(p: Any, q: Any) -> fastkl.Comparison:
        a, b = log_softmax(p), log_softmax(q)
        p, q = exp(a), exp(b)
        m = log((p + q) / 2)
        return fastkl.Comparison(
            entropy_p=-(p * a).sum(1),
            entropy_q=-(q * b).sum(1),
            cross_entropy=-(p * b).sum(1),
            kl=(p * (a - b)).sum(1),
            reverse_kl=(q * (b - a)).sum(1),
            js=((p * (a - m)).sum(1) + (q * (b - m)).sum(1)) / 2,
            total_variation=abs(p - q).sum(1) / 2,
            same_argmax=a.argmax(1) == b.argmax(1),
            nll_p=None,
            nll_q=None,
        )

    return {
        "kl_from_logits": kl_divergence,
        "labels_from_logits": lambda labels, q: -log_softmax(q)[np.arange(len(q)), labels],
        "entropy_from_logits": entropy,
        "compare_from_logits": compare,
    }


def _divergences(of: Any) -> Functions:
    """Return the other divergences by their definitions; `of` is NumPy or torch."""
    return {
        "jeffreys_divergence": lambda p, q: ((p - q) * of.log(p / q)).sum(1),
        "renyi_divergence(2.0)": lambda p, q: of.log((p * p / q).sum(1)),
        "renyi_divergence(0.3)": lambda p, q: of.log((p**0.3 * q**0.7).sum(1)) / -0.7,
        "chi2_divergence": lambda p, q: ((p - q) ** 2 / q).sum(1),
        "hellinger_distance": lambda p, q: of.sqrt(((of.sqrt(p) - of.sqrt(q)) ** 2).sum(1) / 2),
        "total_variation": lambda p, q: of.abs(p - q).sum(1) / 2,
        "generalized_kl": lambda p, q: (p * of.log(p / q) - p + q).sum(1),
    }


def _numpy(_threads: int) -> Functions:
    def log_softmax(x: Array) -> Array:
        x = x - x.max(1, keepdims=True)
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    return (_from_logits(log_softmax, np.exp, np.log) | _divergences(np)) | {
        "kl_divergence": lambda p, q: (p * np.log(p / q)).sum(1),
        "cross_entropy": lambda p, q: -(p * np.log(q)).sum(1),
        "entropy": lambda p: -(p * np.log(p)).sum(1),
    }


def _numpy_zero_safe(_threads: int) -> Functions:
    return {
        "kl_divergence": lambda p, q: (p * np.log(np.where(p > 0, p / q, 1))).sum(1),
        "cross_entropy": lambda p, q: -(p * np.log(np.where(p > 0, q, 1))).sum(1),
        "entropy": lambda p: -(p * np.log(np.where(p > 0, p, 1))).sum(1),
    }


def _scipy_special(_threads: int) -> Functions:
    from scipy.special import entr, kl_div, log_softmax, rel_entr

    return _from_logits(partial(log_softmax, axis=1), np.exp, np.log) | {
        "kl_divergence": lambda p, q: rel_entr(p, q).sum(1),
        "cross_entropy": lambda p, q: (entr(p) + rel_entr(p, q)).sum(1),
        "entropy": lambda p: entr(p).sum(1),
        "jeffreys_divergence": lambda p, q: (rel_entr(p, q) + rel_entr(q, p)).sum(1),
        "generalized_kl": lambda p, q: kl_div(p, q).sum(1),
    }


def _scipy_stats(_threads: int) -> Functions:
    from scipy.stats import chisquare, entropy

    # It has no cross-entropy, and normalises the rows; of the test of a fit, this is the statistic.
    chi2: Functions = {"chi2_divergence": lambda p, q: chisquare(p, q, axis=1).statistic}
    return dict.fromkeys(("kl_divergence", "entropy"), partial(entropy, axis=1)) | chi2


def _sklearn(_threads: int) -> Functions:
    from sklearn.metrics.pairwise import paired_euclidean_distances, paired_manhattan_distances

    return {
        "hellinger_distance": lambda p, q: paired_euclidean_distances(np.sqrt(p), np.sqrt(q)) / math.sqrt(2),
        "total_variation": lambda p, q: paired_manhattan_distances(p, q) / 2,
    }


def _numexpr(threads: int) -> Functions:
    import numexpr

    # Its own sum runs on one thread (numexpr#417), so the terms are summed by NumPy.
    def terms(expression: str) -> Function:
        def call(p: Array, q: Array | None = None) -> Array:
            if numexpr.get_num_threads() != threads:
                numexpr.set_num_threads(threads)
            # numexpr has no types
            return numexpr.evaluate(expression, {"p": p, "q": q} if q is not None else {"p": p}).sum(1)  # type: ignore[no-any-return]

        return call

    return {
        "kl_divergence": terms("where(p > 0, p * log(p / q), 0)"),
        "cross_entropy": terms("where(p > 0, -p * log(q), 0)"),
        "entropy": terms("where(p > 0, -p * log(p), 0)"),
    }


@cache
def _compiled() -> dict[str, Any]:
    import numba

    # Division by zero gives inf as everywhere else, instead of an exception that would cost time.
    compiled = numba.njit(parallel=True, error_model="numpy")
    prange = numba.prange

    @compiled
    def kl_divergence(p, q, out):  # type: ignore[no-untyped-def]  # numba finds the types
        for i in prange(p.shape[0]):
            total = 0.0
            for j in range(p.shape[1]):
                if p[i, j] > 0:
                    total += p[i, j] * math.log(p[i, j] / q[i, j])
            out[i] = total

    @compiled
    def cross_entropy(p, q, out):  # type: ignore[no-untyped-def]  # numba finds the types
        for i in prange(p.shape[0]):
            total = 0.0
            for j in range(p.shape[1]):
                if p[i, j] > 0:
                    total -= p[i, j] * math.log(q[i, j])
            out[i] = total

    @compiled
    def entropy(p, out):  # type: ignore[no-untyped-def]  # numba finds the types
        for i in prange(p.shape[0]):
            total = 0.0
            for j in range(p.shape[1]):
                if p[i, j] > 0:
                    total -= p[i, j] * math.log(p[i, j])
            out[i] = total

    @numba.njit(error_model="numpy")
    def log_sum(row):  # type: ignore[no-untyped-def]  # numba finds the types
        largest = row[0]
        for j in range(1, row.shape[0]):
            largest = max(largest, row[j])
        total = 0.0
        for j in range(row.shape[0]):
            total += math.exp(row[j] - largest)
        return largest + math.log(total)

    @compiled
    def kl_from_logits(p, q, out):  # type: ignore[no-untyped-def]  # numba finds the types
        for i in prange(p.shape[0]):
            a, b = log_sum(p[i]), log_sum(q[i])
            total = 0.0
            for j in range(p.shape[1]):
                x, y = p[i, j] - a, q[i, j] - b
                total += math.exp(x) * (x - y)
            out[i] = total

    @compiled
    def entropy_from_logits(p, out):  # type: ignore[no-untyped-def]  # numba finds the types
        for i in prange(p.shape[0]):
            a = log_sum(p[i])
            total = 0.0
            for j in range(p.shape[1]):
                total -= math.exp(p[i, j] - a) * (p[i, j] - a)
            out[i] = total

    @compiled
    def labels_from_logits(labels, q, out):  # type: ignore[no-untyped-def]  # numba finds the types
        for i in prange(q.shape[0]):
            out[i] = log_sum(q[i]) - q[i, labels[i]]

    return {
        "kl_divergence": kl_divergence,
        "cross_entropy": cross_entropy,
        "entropy": entropy,
        "kl_from_logits": kl_from_logits,
        "entropy_from_logits": entropy_from_logits,
        "labels_from_logits": labels_from_logits,
    }


def _numba(threads: int) -> Functions:
    import numba

    def bound(kernel: Function) -> Function:
        def call(*operands: Array) -> Array:
            numba.set_num_threads(threads)
            shape = np.broadcast_shapes(*(x.shape for x in operands if x.ndim > 1))
            out = np.empty(shape[0], operands[-1].dtype)
            kernel(*(x if x.ndim == 1 or x.shape == shape else np.broadcast_to(x, shape) for x in operands), out)
            return out

        return call

    return {measure: bound(kernel) for measure, kernel in _compiled().items()}


def _torch(threads: int) -> Functions:
    import torch

    def bound(function: Function) -> Function:
        def call(*operands: Array) -> Any:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            result = function(*map(torch.from_numpy, operands))
            if isinstance(result, fastkl.Comparison):
                return fastkl.Comparison(*(x if x is None else x.numpy() for x in result))
            return result.numpy()

        return call

    log_softmax = partial(torch.log_softmax, dim=1)
    kl_div = partial(torch.nn.functional.kl_div, reduction="none", log_target=True)
    from_logits = _from_logits(log_softmax, torch.exp, torch.log) | {
        "kl_from_logits": lambda p, q: kl_div(log_softmax(q), log_softmax(p)).sum(1),
        "labels_from_logits": lambda labels, q: torch.nn.functional.cross_entropy(q, labels, reduction="none"),
    }
    return {measure: bound(function) for measure, function in (from_logits | _divergences(torch)).items()} | {
        "kl_divergence": bound(lambda p, q: torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(1)),
        # Its cross_entropy takes logits, as above; this is the zero-safe sum of probabilities.
        "cross_entropy": bound(lambda p, q: -torch.special.xlogy(p, q).sum(1)),
        "entropy": bound(lambda p: torch.special.entr(p).sum(1)),
    }


def _numkong(_threads: int) -> Functions:
    import numkong

    def kl_divergence(p: Array, q: Array) -> Array:
        if len(p) != len(q):
            raise ValueError("does not broadcast")
        return np.asarray(numkong.kullbackleibler(p, q))

    return {"kl_divergence": kl_divergence}


def _mkl_file(name: str) -> str:
    """Return a library of the wheel, with any prefix, version and suffix of its name."""
    files = metadata.files("mkl") or []
    return str(next(file.locate() for file in files if re.match(rf"(lib)?{name}\.", file.name)))


@cache
def _mkl() -> ctypes.CDLL:
    """Return MKL, sequential: without a second OpenMP beside fastkl's."""
    library = ctypes.CDLL(_mkl_file("mkl_rt"))
    sequential = 1
    library.MKL_Set_Threading_Layer(sequential)
    return library


def _logs(double: Any, single: Any) -> Functions:
    """Return a function of the logarithms of p alone, in whose time KL is to be computed; its result is allocated once."""
    most_accurate = ctypes.c_int64(2)  # VML_HA
    result = cache(np.empty)

    def log(p: Array, _q: Array) -> Array:
        out = result(p.shape, p.dtype)
        function = double if p.dtype == np.float64 else single
        function(ctypes.c_int(p.size), ctypes.c_void_p(p.ctypes.data), ctypes.c_void_p(out.ctypes.data), most_accurate)
        return out

    return {"kl_divergence": log}


def _mkl_log(_threads: int) -> Functions:
    return _logs(_mkl().vmdLn, _mkl().vmsLn)


def _mkl_kernel(_threads: int) -> Functions:
    # On CPUs that are not Intel's, vmdLn takes MKL's kernel for any x86: a third of the speed on a Zen 4. This is that
    # for fastkl's instruction set, called by its undocumented name.
    tier = fastkl.build_info()["simd"]
    suffix = {"avx512": "Z0HAynn", "avx2": "L9HAynn"}.get(tier)
    if suffix is None:
        raise NotImplementedError(f"no kernel known for the tier {tier}")
    one = np.ones((1, 1))
    _mkl_log(1)["kl_divergence"](one, one)  # loads what the kernels need
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.argtypes, dlopen.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
    path = _mkl_file(f"mkl_vml_{tier}")
    kernels = ctypes.CDLL(path, handle=dlopen(path.encode(), os.RTLD_LAZY))  # ctypes alone would bind all names now
    return _logs(getattr(kernels, f"mkl_vml_kernel_dLn_{suffix}"), getattr(kernels, f"mkl_vml_kernel_sLn_{suffix}"))


FASTKL = "fastkl"
AGAIN = "fastkl again"  # the same function: its difference is the noise
PEERS = [
    Peer(FASTKL, "fastkl", _fastkl, parallel=True),
    Peer(AGAIN, "fastkl", _fastkl, parallel=True),
    Peer("numpy", "numpy", _numpy),
    Peer("numpy zero-safe", "numpy", _numpy_zero_safe),
    Peer("scipy.special", "scipy", _scipy_special),
    Peer("scipy.stats", "scipy", _scipy_stats),
    Peer("scikit-learn", "scikit-learn", _sklearn),
    Peer("numexpr", "numexpr", _numexpr, parallel=True),
    Peer("numba", "numba", _numba, parallel=True),
    Peer("torch", "torch", _torch, parallel=True),
    Peer("numkong", "numkong", _numkong),
    Peer("mkl log alone", "mkl", _mkl_log, whole=False),
    Peer("mkl log kernel", "mkl", _mkl_kernel, whole=False),
]


def missing() -> list[str]:
    """Return a line for each contender that cannot take part."""
    absent = [f"{peer.name}: package {peer.package} is not installed" for peer in PEERS if peer.version is None]
    return absent + [f"{name} does not work here: {why}" for name, why in UNUSABLE.items()]


def without(measure: str) -> list[str]:
    """Return a line for each usable contender that does not have the measure."""
    return [f"{peer.name} has no {measure}" for peer in PEERS if (found := peer.functions(1)) and measure not in found]
