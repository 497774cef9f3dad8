"""Losses and their gradients equal those of lightly (1.6.0, on torch 2.13) in float64.

Each lightly loss receives its views in the form that it expects. Where its definition differs by a
constant, the test states the constant and the reason. Scales that lightly does not have (BYOL's and
MoCo v3's) are built from its parts.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses

B, D, K, Q, L = 12, 7, 9, 30, 3
TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def peers(torchvision):
    """The module lightly.loss."""
    return pytest.importorskip("lightly.loss")


def _rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def _assert_equal(torch, ours, theirs, *arrays):
    """Asserts equal values and gradients of two functions of arrays; `theirs` takes tensors."""
    with jax.enable_x64(True):
        step = jax.jit(jax.value_and_grad(ours, argnums=tuple(range(len(arrays)))))
        value, gradient = step(*map(jnp.asarray, arrays))
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    want = theirs(*tensors)
    want.sum().backward()
    assert float(value) == pytest.approx(want.item(), rel=TOLERANCE)
    for got, tensor in zip(gradient, tensors, strict=True):
        expected = np.zeros(got.shape) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def _views(x):
    return [x[:, i] for i in range(x.shape[1])]


def test_nt_xent(torch, peers):
    _assert_equal(
        torch,
        lambda z: losses.nt_xent(z, temperature=0.2)[0],
        lambda z: peers.NTXentLoss(temperature=0.2)(*_views(z)),
        _rows(B, 2, D),
    )


def test_decoupled(torch, peers):
    _assert_equal(
        torch,
        lambda z: losses.decoupled(z, temperature=0.2)[0],
        lambda z: peers.DCLLoss(temperature=0.2)(*_views(z)),
        _rows(B, 2, D),
    )


def test_info_nce_with_a_queue(torch, peers):
    """lightly's memory bank holds unit rows and, as here, the key keeps its gradient."""
    queue = _rows(Q, D, seed=1)
    queue /= np.linalg.norm(queue, axis=1, keepdims=True)
    peer = peers.NTXentLoss(temperature=0.2, memory_bank_size=(Q, D))
    peer.memory_bank.bank = torch.tensor(queue)
    _assert_equal(
        torch,
        lambda q, k: losses.info_nce(q, k, temperature=0.2, queue=jnp.asarray(queue))[0],
        peer,
        _rows(B, D),
        _rows(B, D, seed=2),
    )


def test_moco_v3_scale(torch):
    """MoCo v3 (arXiv 2104.02057, algorithm 1) adds both directions and multiplies by 2 T.

    `info_nce` is the mean over b queries, so MoCo v3's loss is 2 T (first + second).
    """
    temperature = 0.3

    def ours(q1, q2, k1, k2):
        pairs = ((q1, k2), (q2, k1))
        return 2 * temperature * sum(
            losses.info_nce(q, jax.lax.stop_gradient(k), temperature=temperature)[0]
            for q, k in pairs
        )  # fmt: skip

    def theirs(q1, q2, k1, k2):
        unit = torch.nn.functional.normalize
        total = 0
        for q, k in ((q1, k2), (q2, k1)):
            logits = unit(q, dim=1) @ unit(k.detach(), dim=1).T / temperature
            labels = torch.arange(B)
            total += torch.nn.functional.cross_entropy(logits, labels) * 2 * temperature
        return total

    _assert_equal(torch, ours, theirs, *(_rows(B, D, seed=i) for i in range(4)))


def _symmetric(criterion, prediction, target):
    (p1, p2), (t1, t2) = _views(prediction), _views(target.detach())
    return 0.5 * (criterion(p1, t2) + criterion(p2, t1))


def test_simsiam(torch, peers):
    """lightly's criterion is one direction; its users halve the sum, as in equation 4."""
    _assert_equal(
        torch,
        lambda p, t: losses.simsiam(p, t)[0],
        lambda p, t: _symmetric(peers.NegativeCosineSimilarity(), p, t),
        _rows(B, 2, D),
        _rows(B, 2, D, seed=1),
    )


def test_byol(torch, peers):
    """lightly trains BYOL with half the sum of the negative cosines c.

    Equation 2 is 2 + 2 c for each direction, and the paper adds both directions. The loss is
    therefore 4 + 4 c, and its gradient is 4 times as large.
    """
    _assert_equal(
        torch,
        lambda p, t: losses.byol(p, t)[0],
        lambda p, t: 4 + 4 * _symmetric(peers.NegativeCosineSimilarity(), p, t),
        _rows(B, 2, D),
        _rows(B, 2, D, seed=1),
    )


def test_barlow_twins(torch, peers):
    """Both normalise with BatchNorm's biased variance plus 1e-5, as in the authors' code."""
    _assert_equal(
        torch,
        lambda z: losses.barlow_twins(z, lambda_=0.02)[0],
        lambda z: peers.BarlowTwinsLoss(lambda_param=0.02)(*_views(z)),
        0.05 * _rows(B, 2, D),  # small enough for the epsilon of 1e-5 to matter
    )


def test_vicreg(torch, peers):
    """Both follow the authors' code: invariance averages over dimensions, variance over views.

    Equation 6 as printed is this loss with sim * d and 2 * std.
    """
    z = _rows(B, 2, D) * np.linspace(0.5, 1.5, D)
    _assert_equal(
        torch,
        lambda z: losses.vicreg(z)[0],
        lambda z: peers.VICRegLoss()(*_views(z)),
        z,
    )


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("queue", [False, True])
def test_swav(torch, peers, local, queue):
    arrays = {"full": np.tanh(_rows(B, 2, K))}
    if local:
        arrays["local"] = np.tanh(_rows(B, L, K, seed=1))
    if queue:
        arrays["queue"] = np.tanh(_rows(Q, 2, K, seed=2))

    def ours(*values):
        named = dict(zip(arrays, values, strict=True))
        return losses.swav(named.pop("full"), **named)[0]

    def theirs(*values):
        named = {name: _views(x) for name, x in zip(arrays, values, strict=True)}
        return peers.SwaVLoss()(named["full"], named.get("local", []), named.get("queue"))

    _assert_equal(torch, ours, theirs, *arrays.values())


@pytest.mark.parametrize("local", [False, True])
def test_dino(torch, peers, local):
    center = _rows(K, seed=5)
    peer = peers.DINOLoss(output_dim=K)
    peer.center = torch.tensor(center)[None, None]
    arrays = [_rows(B, 2, K), _rows(B, 2, K, seed=1)]
    if local:
        arrays.append(_rows(B, L, K, seed=2))

    def ours(student, teacher, local=None):
        options = {"center": jnp.asarray(center), "teacher_temperature": 0.0625}
        return losses.dino(student, teacher, local=local, **options)[0]

    def theirs(student, teacher, local=None):
        students = _views(student) + ([] if local is None else _views(local))
        return peer(_views(teacher.detach()), students, teacher_temp=0.0625)

    _assert_equal(torch, ours, theirs, *arrays)
    with jax.enable_x64(True):  # the call above has updated the peer's center
        new = losses.dino_center(jnp.asarray(center), jnp.asarray(arrays[1]))
    np.testing.assert_allclose(new, peer.center[0, 0].numpy(), rtol=TOLERANCE)
