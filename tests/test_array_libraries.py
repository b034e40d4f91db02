"""Arrays of torch and JAX, of the array API, and of what has DLPack alone."""

import numpy as np
import pytest
from support.checks import assert_allocates_less, assert_close, assert_invalid, assert_refused, assert_same, distributions
from support.containers import BAD, NEGATIVE, P, Q, recorded
from support.measures import MEASURES

import fastkl
from fastkl.call import BFLOAT16

kl, entropy, compare = fastkl.kl_divergence, fastkl.entropy, fastkl.compare


def test_torch_results():
    torch = pytest.importorskip("torch")
    p, q = torch.from_numpy(P), torch.from_numpy(Q)
    assert kl(p, q).numpy().base is not None  # the tensor is a view of a NumPy array
    scalar = kl(p[0], q[1])
    assert scalar.shape == ()
    assert type(scalar) is torch.Tensor
    assert_same(kl(torch.nn.Parameter(p.clone()).detach(), Q), kl(P, Q))


def test_torch_bfloat16_is_viewed(monkeypatch):
    """NumPy reads the bits where they are."""
    torch = pytest.importorskip("torch")
    requests = recorded(monkeypatch)
    tensor = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.25, 0.0]], dtype=torch.bfloat16)[:, ::2]
    entropy(tensor, normalize=True)
    view = requests[0].p
    assert view.dtype == BFLOAT16
    assert view.ctypes.data == tensor.data_ptr()
    assert view["bfloat16"].tolist() == [[0x3F80, 0x4040], [0x3F00, 0]]


@pytest.mark.parametrize("keepdims", [False, True])
def test_torch_axis_and_strides(keepdims):
    torch = pytest.importorskip("torch")
    for axis in 0, 1, -1:
        p, q = (distributions(seed, (4, 6, 8), axis=axis) for seed in (5, 6))
        tensors = [torch.from_numpy(x).permute(2, 0, 1).contiguous().permute(1, 2, 0) for x in (p, q)]
        assert_close(kl(*tensors, axis=axis, keepdims=keepdims), kl(p, q, axis=axis, keepdims=keepdims))


def test_torch_out():
    torch = pytest.importorskip("torch")
    p, q = torch.from_numpy(P), torch.from_numpy(Q)
    for dtype in torch.float64, torch.float32, torch.float16:
        whole = torch.zeros(5, 2, dtype=dtype)
        out = whole[:, 1]
        assert kl(p, q, out=out) is out
        assert_same(whole[:, 1], kl(P, Q, out=np.empty(5, str(dtype).removeprefix("torch."))))
        assert not whole[:, 0].any()
    out = torch.empty(5, 1)
    assert kl(P, q, out=out, keepdims=True) is out
    assert_same(out[:, 0], kl(P, Q, out=np.empty(5, "f4")))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_torch_half(dtype):
    """A float32 holds every float16 and bfloat16: the result is that of the same values in float32, for any strides."""
    torch = pytest.importorskip("torch")
    p = torch.from_numpy(distributions(7, (6, 40))).to(getattr(torch, dtype))
    q = torch.from_numpy(distributions(8, (6, 80))).to(getattr(torch, dtype))[:, ::2]
    result = kl(p, q, normalize=True)
    assert result.dtype == torch.float32
    assert_close(result, kl(p.float().numpy(), q.float().numpy(), normalize=True))
    assert kl(p[0], p[0]) == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_jax(measure):
    jax, jnp = pytest.importorskip("jax"), pytest.importorskip("jax.numpy")
    p, q = jnp.asarray(P, "f4"), jnp.asarray(Q, "f4")
    result = measure(p, q)
    assert isinstance(result, jax.Array)
    assert_same(result, measure(np.asarray(p), np.asarray(q)))
    assert measure(p, Q).dtype == jnp.asarray(np.float64(1)).dtype  # JAX decides whether it has float64
    assert measure(p[0], q[0]).shape == ()
    large = jnp.asarray(distributions(16, (2000, 100), "f4"))
    assert_allocates_less(large.nbytes / 20, lambda: measure(large, large))
    assert_invalid("p[3, 4]", NEGATIVE, measure, jnp.asarray(BAD, "f4"), q)
    for traced, args in (measure, (p, q)), (lambda p: measure(p, q), (p,)):
        with pytest.raises(TypeError, match=r"^[pq] is traced by JAX"):
            jax.jit(traced)(*args)


def test_jax_bfloat16():
    jnp = pytest.importorskip("jax.numpy")
    p = jnp.asarray(distributions(17, (3, 50), "f4")).astype("bfloat16")
    result = entropy(p, normalize=True)
    assert result.dtype == jnp.float32
    assert_close(result, entropy(np.asarray(p.astype("f4")), normalize=True))


def test_array_api():
    xp = pytest.importorskip("array_api_strict")
    p = xp.asarray(P, device=xp.Device("device1"))
    result = entropy(p, keepdims=True)
    assert result.device == p.device
    assert result.dtype == xp.float64
    assert entropy(p[0, :]).shape == ()
    assert_close(entropy(xp.asarray(P > 0.1), normalize=True), entropy(P > 0.1, normalize=True))
    read_only = P.copy()
    read_only.flags.writeable = False
    assert_close(entropy(xp.asarray(read_only, copy=False)), entropy(P))


@pytest.mark.parametrize(("p", "q", "labels"), [(P, Q, None), (P, Q, [0, 1, 2, 3, 6]), (P[0], Q[0], 2)])
def test_array_api_compare(p, q, labels):
    """Such an array has no index of its first axis alone."""
    xp = pytest.importorskip("array_api_strict")
    own = labels if labels is None else xp.asarray(labels)
    for operands in (xp.asarray(p), xp.asarray(q), labels), (p, xp.asarray(q), own):
        for field, expected in zip(compare(*operands), compare(p, q, labels), strict=True):
            if expected is None:
                assert field is None
            else:
                assert type(field) is type(operands[1])
                assert_same(field, expected)


class Foreign:
    """An object that has DLPack and nothing else."""

    def __init__(self, device, error=""):
        self.device, self.error = device, error

    def __dlpack_device__(self):
        return self.device, 0

    def __dlpack__(self, **keywords):
        if self.error:
            raise BufferError(self.error)
        return P.__dlpack__(**keywords)


class ForeignArray(Foreign):
    """The same with `__array__`, by which NumPy can read it."""

    def __array__(self, dtype=None, copy=None):
        return np.array(P, dtype)


def test_dlpack():
    result = entropy(Foreign(1))
    assert type(result) is np.ndarray
    assert_same(result, entropy(P))
    assert_refused(TypeError, f"q is a {__name__}.Foreign on device 2: must be on the CPU", kl, P, Foreign(2))
    message = f"p is a {__name__}.Foreign, which is no NumPy array: no such dtype"
    assert_refused(TypeError, message, entropy, Foreign(1, "no such dtype"))
    assert_same(entropy(ForeignArray(1, "no such dtype")), entropy(P))
