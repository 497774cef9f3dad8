"""Contrastive losses against their formulas in float64, over tiles, transports and devices."""

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax import losses
from ssl_jax.losses import tiles

B, D = 40, 16  # 80 rows: several tiles of at most 7 rows on every device, some padded
LABEL = np.random.default_rng(3).integers(0, 5, B)
LABEL[:7] = -1
LABEL[7] = 9  # the only example of this class


def _rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape) * 2 + 0.3


PAIR = (_rows(B, 2, D),)
TOWERS = (_rows(B, D), _rows(B, D, seed=1))
CASES = {
    "nt_xent": (PAIR, {}),
    "nt_xent queue": (PAIR, {"queue": _rows(72, D, seed=2)}),
    "decoupled": (PAIR, {}),
    "debiased": (PAIR, {"class_prior": 0.2}),
    "hard_negatives": (PAIR, {"concentration": 0.7}),
    "info_nce": (TOWERS, {}),
    "info_nce queue": (TOWERS, {"queue": _rows(72, D, seed=2)}),
    "paired_info_nce": (TOWERS, {}),
    "supervised_contrastive": (PAIR, {"label": LABEL}),
    "supervised_contrastive 3 views": ((_rows(B, 3, D),), {"label": LABEL}),
    "supervised_contrastive 1 view": ((_rows(B, 1, D),), {"label": LABEL}),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 7)


def _value_and_grad(fn, arrays, temperature):
    """Loss, and gradient by every array and by the temperature."""
    argnums = tuple(range(len(arrays) + 1))
    loss, gradient = jax.jit(jax.value_and_grad(lambda *a: fn(*a[:-1], a[-1]), argnums=argnums))(
        *arrays, temperature
    )
    return [np.asarray(x, np.float64) for x in (loss, *gradient)]


def _oracle(case, temperature):
    arrays, options = CASES[case]
    loss = getattr(dense, case.split()[0])
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        return _value_and_grad(
            lambda *a: loss(*a[:-1], temperature=a[-1], **options), arrays, np.float64(temperature)
        )


def _computed(case, temperature, dtype, devices=1, transport=None):
    arrays, options = CASES[case]
    loss = getattr(losses, case.split()[0])
    shape = (devices,) if isinstance(devices, int) else devices
    axes = ("data", "fsdp")[: len(shape)]
    mesh = jax.make_mesh(
        shape, axes, axis_types=(AxisType.Auto,) * len(shape),
        devices=jax.devices()[: np.prod(shape)],
    )  # fmt: skip
    sharding = NamedSharding(mesh, PartitionSpec(axes))
    with jax.set_mesh(mesh):
        options = {
            name: jax.device_put(o if o.dtype == LABEL.dtype else o.astype(dtype), sharding)
            if isinstance(o, np.ndarray)
            else o
            for name, o in options.items()
        }
        arrays = [jax.device_put(jnp.asarray(a, dtype), sharding) for a in arrays]
        return _value_and_grad(
            lambda *a: loss(*a[:-1], temperature=a[-1], transport=transport, **options)[0],
            arrays,
            jnp.asarray(temperature, jnp.float64 if dtype == jnp.float64 else jnp.float32),
        )


def _gap(got, want):
    """Largest difference, relative to max(loss, 0.1) and to each gradient's largest value."""
    scales = [max(abs(want[0]), 0.1)] + [max(np.abs(g).max(), 1e-3) for g in want[1:]]
    return max(np.abs(g - w).max() / s for g, w, s in zip(got, want, scales, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_equals_the_formula_on_any_number_of_devices(case):
    want = _oracle(case, 0.2)
    layouts = [(1, None), (2, "ring"), (4, "gather"), (8, "ring")]
    if "queue" not in case:
        # An odd ring has no two devices that are half-way around from each other.
        layouts += [(5, "ring"), (5, "gather")]
    for devices, transport in layouts:
        with jax.enable_x64(True):
            got = _computed(case, 0.2, jnp.float64, devices, transport)
        assert _gap(got, want) < 1e-13, (devices, transport)


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_float32_accuracy(case, temperature):
    want = _oracle(case, temperature)
    assert _gap(_computed(case, temperature, jnp.float32), want) < 1e-5


@pytest.mark.parametrize("case", ["nt_xent", "info_nce queue", "supervised_contrastive"])
def test_bfloat16_accuracy(case):
    arrays, options = CASES[case]
    rounded = [np.asarray(jnp.asarray(a, jnp.bfloat16), np.float64) for a in arrays]
    CASES["rounded"] = rounded, options
    try:
        loss = getattr(dense, case.split()[0])
        with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
            want = _value_and_grad(
                lambda *a: loss(*a[:-1], temperature=a[-1], **options), rounded, np.float64(0.2)
            )
    finally:
        del CASES["rounded"]
    assert _gap(_computed(case, 0.2, jnp.bfloat16), want) < 5e-3


@pytest.mark.parametrize("transport", ["gather", "ring"])
@pytest.mark.parametrize("case", ["nt_xent", "paired_info_nce"])
def test_mesh_with_two_axes(case, transport):
    with jax.enable_x64(True):
        got = _computed(case, 0.2, jnp.float64, (2, 2), transport)
    assert _gap(got, _oracle(case, 0.2)) < 1e-13


def test_towers_of_different_dtypes_use_the_wider_dtype():
    x, y = (jnp.asarray(t, jnp.float32) for t in TOWERS)
    narrow = x.astype(jnp.bfloat16)
    got = [losses.paired_info_nce(*p, temperature=0.1)[0] for p in ((narrow, y), (y, narrow))]
    want = losses.paired_info_nce(narrow.astype(jnp.float32), y, temperature=0.1)[0]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_supervised_loss_with_unique_classes_equals_nt_xent():
    z = jnp.asarray(PAIR[0], jnp.float32)
    for label in (np.arange(B), np.full(B, -1)):
        got, metrics = losses.supervised_contrastive(z, label, temperature=0.1)
        assert got == pytest.approx(float(losses.nt_xent(z, temperature=0.1)[0]), rel=1e-6)
        assert metrics["positives"] == 1


def test_debiased_and_hard_negatives_reduce_to_simpler_losses():
    z = jnp.asarray(PAIR[0], jnp.float32)
    plain = float(losses.nt_xent(z, temperature=0.3)[0])
    assert losses.debiased(z, temperature=0.3, class_prior=0)[0] == pytest.approx(plain, rel=1e-6)
    debiased = float(losses.debiased(z, temperature=0.3)[0])
    same = losses.hard_negatives(z, temperature=0.3, concentration=0)[0]
    assert same == pytest.approx(debiased, rel=1e-6)


def test_queue_receives_no_gradient():
    (query, key), options = CASES["info_nce queue"]
    query, key = jnp.asarray(query, jnp.float32), jnp.asarray(key, jnp.float32)
    gradient = jax.grad(lambda queue: losses.info_nce(query, key, temperature=0.1, queue=queue)[0])(
        jnp.asarray(options["queue"], jnp.float32)
    )
    assert not np.any(gradient)


def test_contrastive_chance_is_the_accuracy_of_guessing():
    (query, key), options = CASES["info_nce queue"]
    query, key, queue = (jnp.asarray(x, jnp.float32) for x in (query, key, options["queue"]))
    for (_, metrics), candidates in (
        (losses.info_nce(query, key, temperature=0.1, queue=queue), len(queue) + 1),
        (losses.info_nce(query, key, temperature=0.1), B),
        (losses.paired_info_nce(query, key, temperature=0.1), B),
        (
            losses.nt_xent(jnp.stack([query, key], 1), temperature=0.1, queue=queue),
            2 * B - 1 + len(queue),
        ),
    ):
        assert metrics["contrastive_chance"] == pytest.approx(1 / candidates)
        assert metrics["contrastive_chance"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: losses.debiased(z, temperature=0.1, class_prior=1.0), "class_prior"),
        (lambda z: losses.hard_negatives(z, temperature=0.1, concentration=-1), "concentration"),
        (lambda z: losses.info_nce(z[:, 0], z[:3, 1], temperature=0.1), "shapes"),
        (lambda z: losses.info_nce(z[:1, 0], z[:1, 1], temperature=0.1), "at least 2"),
        (lambda z: losses.paired_info_nce(z[:, 0], z, temperature=0.1), "shapes"),
        (lambda z: losses.info_nce(z[:, 0], z[:, 1], temperature=-1), "temperature"),
        (lambda z: losses.info_nce(z[:, 0], z[:, 1], temperature=1, queue=z[:, 0, 1:]), "queue"),
        (lambda z: losses.supervised_contrastive(z, LABEL[:3], temperature=1), "label"),
        (lambda z: losses.nt_xent(z, temperature=1, transport="pigeon"), "gather, ring"),
    ],
)
def test_invalid_arguments_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.asarray(PAIR[0], jnp.float32))


def test_rows_that_devices_do_not_divide_raise():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=r"26 rows cannot be divided .* 8"):
        losses.nt_xent(jnp.asarray(_rows(13, 2, D)), temperature=0.1)
