"""Target networks and momentum encoders after several steps, against NumPy."""

import itertools

import jax
import linear
import numpy as np
import pytest
import tiny

from ssl_jax.methods import Run, byol, dino, moco_v3, simclr_v2

B, STEPS, BASE = 8, 6, 0.6
RUN = Run(tiny.seen(2, 2), STEPS, B, num_examples=16)


def momentum(step):
    """Momentum of BYOL, section 3.3."""
    return 1 - (1 - BASE) * (np.cos(np.pi * step / STEPS) + 1) / 2


def moving_average(target, online, m):
    return jax.tree.map(lambda t, o: m * t + (1 - m) * o, target, online)


METHODS = {
    "byol": byol.make(linear.Linear(), RUN, momentum=BASE, hidden_dim=6, output_dim=3),
    "moco_v3": moco_v3.make(linear.Linear(), RUN, momentum=BASE, hidden_dim=6, output_dim=3),
    "moco_v3 of ViT": moco_v3.make(
        linear.Linear(), RUN, momentum=BASE, hidden_dim=6, output_dim=3, predictor_norm=True
    ),
    "dino": dino.make(
        linear.Linear(), RUN, momentum=BASE, prototypes=5, hidden_dim=6, bottleneck_dim=3
    ),
}


@pytest.fixture(scope="module", params=METHODS)
def run(request):
    rows = linear.batches(STEPS, B)
    return request.param, rows, *linear.trajectory(METHODS[request.param], rows)


def test_target_follows_with_cosine_momentum(run):
    name, _, history, last = run
    states = [state for state, _ in history] + [last]
    target = jax.tree.map(np.float64, states[0].extra["target"])
    for step, state in enumerate(states[1:]):
        online = {module: state.params[module] for module in target}
        target = moving_average(target, online, momentum(step))
    for want, got in zip(
        jax.tree.leaves(target), jax.tree.leaves(last.extra["target"]), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    start = states[0]
    copied = all(
        np.array_equal(a, b)
        for module in target
        for a, b in zip(
            jax.tree.leaves(start.params[module]),
            jax.tree.leaves(start.extra["target"][module]),
            strict=True,
        )
    )
    assert copied == (name != "byol")  # BYOL's target starts from its own weights


def test_target_distance_is_logged(run):
    _, _, history, _ = run
    state, metrics = history[-1]
    target = state.extra["target"]
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for module in target
        for a, b in zip(
            jax.tree.leaves(state.params[module]), jax.tree.leaves(target[module]), strict=True
        )
    ]
    gap = np.sqrt(sum(np.square(a - b).sum() for a, b in pairs))
    size = np.sqrt(sum(np.square(a).sum() for a, _ in pairs))
    np.testing.assert_allclose(metrics["target_distance"], gap / size, rtol=1e-4)


def dense(x, layer):
    return x @ np.float64(layer["kernel"]) + np.float64(layer.get("bias", 0))


def batch_norm(x, layer=None):
    """Applies BatchNorm over the rows."""
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    return x if layer is None else x * np.float64(layer["scale"]) + np.float64(layer["bias"])


def mlp(x, params, last):
    """Applies two layers, with BatchNorm and ReLU after the first."""
    x = np.maximum(batch_norm(dense(x, params["dense0"]), params["bn0"]), 0)
    x = dense(x, params["dense1"])
    return batch_norm(x) if last == "plain" else x


def simulate(name, state, views):
    """Returns (predictions, projections of the target), each two arrays [b, d].

    Each view has its own normalisation statistics.
    """
    last = "plain" if name.startswith("moco_v3") else ""
    predictor_last = "plain" if name == "moco_v3 of ViT" else ""
    predictions, projections = [], []
    for v in range(2):
        x = views[:, v]
        online = mlp(
            x @ state.params["encoder"]["dense"]["kernel"], state.params["projector"], last
        )
        predicted = mlp(online, state.params["predictor"], predictor_last)
        predictions.append(linear.unit(predicted))
        target = state.extra["target"]
        z = mlp(x @ target["encoder"]["dense"]["kernel"], target["projector"], last)
        projections.append(linear.unit(z))
    return predictions, projections


def test_loss_equals_the_simulation(run):
    name, rows, history, _ = run
    if name == "dino":
        pytest.skip("tests/losses tests DINO's loss; the test below covers its head")
    for batch, (state, metrics) in zip(rows, history, strict=True):
        p, z = simulate(name, state, linear.flat(batch["views"]))
        if name == "byol":
            loss = sum(np.square(p[i] - z[1 - i]).sum(-1).mean() for i in range(2))
        else:
            logits = [p[i] @ z[1 - i].T for i in range(2)]  # temperature 1
            loss = 2 * sum(np.mean(np.log(np.exp(x).sum(-1)) - np.diagonal(x)) for x in logits)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=2e-4)


def test_dino_freezes_prototypes_and_moves_its_center():
    method = dino.make(
        linear.Linear(), RUN, prototypes=5, hidden_dim=6, bottleneck_dim=3, momentum=0.9,
        warmup_temperature=0.02, teacher_temperature=0.08, warmup_epochs=2.0, freeze_epochs=1.0,
    )  # fmt: skip
    history, last = linear.trajectory(method, linear.batches(STEPS, B))
    steps_per_epoch = 16 // B
    kernels = [s.params["prototypes"]["kernel"] for s, _ in history] + [
        last.params["prototypes"]["kernel"]
    ]
    moved = [not np.array_equal(a, b) for a, b in itertools.pairwise(kernels)]
    assert moved == [
        step >= steps_per_epoch for step in range(STEPS)
    ]  # frozen in the first steps_per_epoch
    assert not np.any(history[0][0].extra["center"])
    assert np.any(last.extra["center"])


def test_simclr_v2_memory_equals_the_simulation():
    slots, m, temperature = 2, 0.7, 0.3
    method = simclr_v2.make(
        linear.Linear(), RUN, temperature=temperature, head_depth=1, output_dim=3,
        memory_size=slots * B, memory_momentum=m,
    )  # fmt: skip
    rows = linear.batches(STEPS, B)
    history, last = linear.trajectory(method, rows, learning_rate=5.0)

    def project(params, x):
        z = dense(x @ np.float64(params["encoder"]["dense"]["kernel"]), params["head"]["dense0"])
        scale = np.float64(params["head"]["bn0"]["scale"])
        flat = z.reshape(-1, z.shape[-1])
        return linear.unit((batch_norm(flat) * scale).reshape(z.shape))

    target = jax.tree.map(np.float64, history[0][0].extra["target"])
    queue = [np.float64(history[0][0].extra["queue"][:, slot]) for slot in range(slots)]
    for step, (batch, (state, metrics)) in enumerate(zip(rows, history, strict=True)):
        if step:
            target = moving_average(target, state.params, m)
        x = linear.flat(batch["views"])
        z = project(state.params, x).reshape(2 * B, -1)
        memory = np.concatenate(queue).reshape(-1, 3)
        logits = np.c_[z @ z.T, z @ memory.T] / temperature
        anchors = np.arange(2 * B)
        logits[anchors, anchors] = -np.inf
        positive = logits[anchors, anchors ^ 1]
        loss = np.mean(np.log(np.exp(logits).sum(-1)) - positive)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=2e-4)
        queue[step % slots] = project(target, x)
    np.testing.assert_allclose(last.extra["queue"].swapaxes(0, 1), queue, atol=1e-3)


def test_memory_size_must_be_a_multiple_of_the_batch_size():
    with pytest.raises(ValueError, match="memory_size 12 is not a multiple of the batch size 8"):
        simclr_v2.make(linear.Linear(), RUN, memory_size=12)
