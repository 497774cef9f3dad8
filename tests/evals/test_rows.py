"""Rows divided over 8 devices give the same numbers, and each device does 1/8 of the work."""

import jax
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.evals import few_shot, knn, linear, logistic, rows

MESH = parallel.make_mesh()
SHARDING = parallel.rows(MESH)


def blobs(n, f=20, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = np.random.default_rng(9).normal(size=(classes, f))
    return (centres[y] + 2 * rng.normal(size=(n, f))).astype(np.float32), y


TRAIN, TEST = blobs(203), blobs(101, seed=1)  # neither divides by 8


def flops(program):
    return program.cost_analysis()["flops"]


def test_shard_pads_with_zeros_and_gather_returns_all_rows():
    x = rows.shard(np.arange(1, 11, dtype=np.float32)[:, None], SHARDING)
    assert x.shape == (16, 1)
    assert x.sharding.shard_shape(x.shape) == (2, 1)
    assert rows.gather(x)[:, 0].tolist() == [*range(1, 11), *[0] * 6]


@pytest.mark.parametrize("context", [False, True])
def test_knn_is_equal_on_one_and_eight_devices(context, monkeypatch):
    alone = knn.predict(*TRAIN, TEST[0], k=30)
    monkeypatch.setattr(knn, "BLOCK_BANK", 20 * 64)  # 4 blocks of the bank, the last of 11 rows
    monkeypatch.setattr(knn, "BLOCK_SCORES", 64 * 8)  # 2 blocks of queries
    with jax.set_mesh(MESH) if context else jax.set_mesh(parallel.make_mesh(jax.devices()[:1])):
        sharded = knn.predict(*TRAIN, TEST[0], k=30, sharding=SHARDING if context else None)
    np.testing.assert_array_equal(sharded, alone)


def test_equal_similarities_keep_their_order_over_blocks(monkeypatch):
    monkeypatch.setattr(knn, "BLOCK_BANK", 4 * 2)
    same = np.ones((6, 4), np.float32)
    assert knn.predict(same, np.array([5, 1, 1, 1, 1, 1]), same[:1], k=1) == [5]
    assert knn.predict(same, np.array([5, 5, 5, 1, 1, 1]), same[:1], k=5) == [5]


def test_knn_divides_the_work_without_communication():
    def compile_search(sharding):
        every = None if sharding is None else parallel.replicated(MESH)

        def shape(*size, where, dtype=np.float32):
            return jax.ShapeDtypeStruct(size, dtype, sharding=where)

        return knn._search.lower(
            shape(256, 64, where=sharding),
            shape(256, 20, where=sharding),
            shape(256, 20, where=sharding, dtype=np.int32),
            shape(1024, 64, where=every),
            shape(1024, where=every, dtype=np.int32),
            1024,
            sharding=sharding,
        ).compile()  # fmt: skip

    one, eight = compile_search(None), compile_search(SHARDING)
    assert flops(eight) < 1.05 * flops(one) / 8
    text = eight.as_text()
    assert "all-gather" not in text
    assert "all-reduce" not in text
    assert all(s.shard_shape((256, 20)) == (32, 20) for s in eight.output_shardings)


@pytest.mark.parametrize("labels_per_class", [0, 3])  # more and fewer rows than features
def test_linear_evaluation_is_equal_on_one_and_eight_devices(labels_per_class):
    options = {"labels_per_class": labels_per_class, "l2": (0.1, 0.01), "draws": 2}
    alone, predicted = linear.sweep(*TRAIN, *TEST, **options)
    sharded, again = linear.sweep(*TRAIN, *TEST, **options, sharding=SHARDING)
    # Sums over devices round differently, which the last steps of the solver show.
    assert sharded.keys() == alone.keys()
    assert sharded["converged"]
    assert alone["converged"]
    rounded = ("iterations", "gradient_norm")
    same = [{k: v for k, v in numbers.items() if k not in rounded} for numbers in (sharded, alone)]
    assert same[0] == same[1]
    np.testing.assert_array_equal(again, predicted)


def test_logistic_regression_divides_the_work_without_gathering_rows():
    x, y = TRAIN
    alone = logistic.fit(x, y, l2=1e-2, num_classes=4)
    sharded = logistic.fit(x, y, l2=1e-2, num_classes=4, sharding=SHARDING)
    np.testing.assert_allclose(sharded.weight, alone.weight, atol=2e-4)
    problems = [logistic.prepare(np.tile(x, (8, 1)), np.tile(y, 8), s) for s in (None, SHARDING)]
    assert problems[1].x.sharding.is_equivalent_to(SHARDING, 2)
    programs = []
    for problem, sharding in zip(problems, (None, SHARDING), strict=True):
        weight = rows.shard(np.ones(len(x) * 8, np.float32), sharding)
        programs.append(logistic.solve.lower(problem, weight, 0.1, problem.zeros(4)).compile())
    # The products with x are divided, and they are most of the work even at this size.
    assert flops(programs[1]) < 0.4 * flops(programs[0])
    assert "all-gather" not in programs[1].as_text()


def test_few_shot_accuracies_are_equal_on_one_and_eight_devices():
    alone = few_shot.evaluate(*TRAIN, *TEST, shots=(1, 10), draws=2)
    assert few_shot.evaluate(*TRAIN, *TEST, shots=(1, 10), draws=2, sharding=SHARDING) == alone
