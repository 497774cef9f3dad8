"""Checks that a method keeps the contract of `ssl_jax.methods.Method`; for tests of any project.

    from ssl_jax import testing

    def test_rotation():
        testing.check_method(my_methods.make_rotation, hidden_dim=32)

The checks train a tiny encoder on random images in float64, where rounding cannot hide a real
difference. They compare one device with up to eight. On a CPU, set
XLA_FLAGS=--xla_force_host_platform_device_count=8 before JAX is imported; with one device, the
checks compare micro-batches with the whole batch only.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import methods, parallel
from ssl_jax.models.norm import BatchNorm
from ssl_jax.optim import optimizers
from ssl_jax.training import state as states
from ssl_jax.training import step
from ssl_jax.training.probe import Probe

DEVICES, CHUNKS, CHUNK = 8, 2, 8  # a chunk holds the images of one device in a micro-batch
BATCH, STEPS = DEVICES * CHUNKS * CHUNK, 4
SEED = 5
TOLERANCE = 1e-9  # of the largest number of an array; float64 rounds at 1e-16
Tree = Any
Seen = dict[str, jax.ShapeDtypeStruct]


class Encoder(nn.Module):
    """Convolution, BatchNorm, dense layer: compiles in a fraction of a ResNet's time.

    There are no biases: before BatchNorm their gradient is only rounding.
    """

    bn_group: int = 0
    bn_views: int = 1
    pool: str = "mean"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images [n, h, w, c] -> features [n, 8], or [n, h / 2, w / 2, 8] with pool="none"."""
        x = nn.Conv(8, (3, 3), strides=2, use_bias=False, dtype=self.dtype)(x)
        x = nn.relu(BatchNorm(group=self.bn_group, views=self.bn_views, dtype=self.dtype)(x, train))
        x = x.mean((1, 2)) if self.pool == "mean" else x
        return nn.Dense(8, use_bias=False, dtype=self.dtype)(x)


def seen(
    views: int = 2, size: int = 8, channels: int = 3, *, local: int = 0, local_size: int = 4
) -> Seen:
    """Returns the arrays of one image as a method sees them, `methods.Run.seen`.

    Args:
      views, size: number of full-size views, and their width and height in pixels.
      channels: channels of the images.
      local, local_size: number and size of the local crops.
    """
    shapes = {"views": (views, size), "local_views": (local, local_size)}
    return {
        name: jax.ShapeDtypeStruct((count, side, side, channels), jnp.float32)
        for name, (count, side) in shapes.items()
        if count
    }


def check_method(
    make: Callable[..., methods.Method],
    *,
    encoder: nn.Module | None = None,
    arrays: Seen | None = None,
    symbols: Mapping[str, int] | None = None,
    **hyperparameters: Any,
) -> None:
    """Checks a method: micro-batches and devices, labels, gradients, features.

    Args:
      make: (encoder, run, **hyperparameters) -> Method, as a config names it.
      encoder: module, (images [n, h, w, c], train) -> [n, f]; `Encoder` by default.
      arrays: arrays of one example, without the batch axis; two views of 8x8 pixels by default.
      symbols: number of different values of each array of symbols, `methods.Run.symbols`.
      hyperparameters: of `make`, for a batch of 128 images.

    Raises:
      AssertionError: the method breaks its contract; the message says where.
    """
    with jax.enable_x64(True):
        trial = Trial(
            make,
            encoder or Encoder(dtype=jnp.float64),
            arrays or seen(),
            hyperparameters,
            symbols or {},
        )
        check_micro_batches(trial)
        check_labels(trial)
        check_training(trial)
        check_features(trial)


class Trial:
    """A method that trains on random images. Results are computed on first use and then kept.

    Args:
      make, encoder, arrays, hyperparameters: as in `check_method`.
      examples: arrays [128, ...] in place of random numbers, for other modalities.
      facts: `Run.facts`.
    """

    def __init__(
        self,
        make: Callable[..., methods.Method],
        encoder: nn.Module,
        arrays: Seen,
        hyperparameters: Mapping[str, Any],
        symbols: Mapping[str, int] = MappingProxyType({}),
        *,
        examples: Mapping[str, np.ndarray] | None = None,
        facts: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        # The full-size views of four examples share statistics, so a chunk holds two such groups.
        group = 4 * arrays["views"].shape[0] if "views" in arrays else 0
        run = methods.Run(
            arrays,
            STEPS,
            BATCH,
            4 * BATCH,
            bn_group=group,
            symbols=symbols,
            chunk=CHUNK,
            facts=facts or {},
        )
        self.method, self.encoder = make(encoder, run, **hyperparameters), encoder
        rng = np.random.Generator(np.random.PCG64(3))
        index = np.arange(BATCH, dtype=np.int32)
        self.batch = {"index": index, "label": index % 3} | {
            name: _random(rng, one, symbols.get(name, 3)) for name, one in arrays.items()
        }
        self.batch |= examples or {}
        self._tx, self._schedule = optimizers.make(
            "sgd", lr=0.1, lr_rule="constant", batch_size=BATCH, warmup_steps=0, total_steps=STEPS,
            weight_decay=0.0, turns=self.method.turns,
        )  # fmt: skip
        self._programs: dict[tuple[int, int], Any] = {}

    @property
    def images(self) -> jax.Array:
        """Evaluation arrays: the first view of every example, or its first array without views."""
        if "views" in self.batch:
            return jnp.asarray(self.batch["views"][:, 0])
        return jnp.asarray(next(v for k, v in self.batch.items() if k not in ("index", "label")))

    @functools.cached_property
    def start(self) -> states.TrainState:
        """State before the first step, with floating-point leaves in float64."""
        mesh = parallel.make_mesh(jax.devices()[:1])
        state = jax.device_get(states.new_state(self._init, self.method.layout, mesh))
        return jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, state)

    @functools.cached_property
    def first(self) -> tuple[Any, Any]:
        """State and metrics after one step. Later steps would amplify rounding."""
        return self.train(1)

    @functools.cached_property
    def whole(self) -> tuple[Any, Any]:
        """State and metrics after all steps."""
        return self.train(STEPS)

    def train(
        self,
        count: int,
        *,
        devices: int = 1,
        microbatch: int = 0,
        state: Any = None,
        labels: np.ndarray | None = None,
    ) -> tuple[Any, Any]:
        """Returns state and metrics after `count` steps on the same batch."""
        mesh, shardings, program = self.program(devices, microbatch)
        rows = self.batch | ({} if labels is None else {"label": labels})
        state = self.start if state is None else state
        with jax.set_mesh(mesh):
            state = jax.device_put(state, shardings)
            for _ in range(count):
                state, metrics = program(state, parallel.to_global(rows, mesh))
        return jax.device_get((state, metrics))

    def program(
        self, devices: int, microbatch: int = 0
    ) -> tuple[jax.sharding.Mesh, Tree, jax.stages.Compiled]:
        """Returns mesh, shardings of the state, and the compiled step: (state, batch)."""
        if (devices, microbatch) not in self._programs:
            # With several devices, parameters are sharded over up to four of them.
            mesh = parallel.make_mesh(jax.devices()[:devices], fsdp=min(devices, 4))
            function = step.make_train_step(
                self.method, self._tx, self._schedule, _PROBE, seed=SEED, mesh=mesh,
                microbatch=microbatch,
            )  # fmt: skip
            shardings = states.state_shardings(self.start, self.method.layout, mesh)
            with jax.set_mesh(mesh):
                state = jax.device_put(self.start, shardings)
                lowered = jax.jit(function).lower(state, parallel.to_global(self.batch, mesh))
                self._programs[devices, microbatch] = mesh, shardings, lowered.compile()
        return self._programs[devices, microbatch]

    @functools.cached_property
    def _init(self) -> Callable[[], states.TrainState]:
        return states.init_fn(self.method, self._tx, _PROBE, self.batch, seed=SEED)


def _random(rng: np.random.Generator, one: jax.ShapeDtypeStruct, values: int) -> np.ndarray:
    """Draws a batch from [0, 1), or whole numbers below `values`, such as groups or tokens."""
    shape = (BATCH, *one.shape)
    if np.issubdtype(one.dtype, np.integer):
        return rng.integers(values, size=shape, dtype=one.dtype)
    return rng.random(shape)


_PROBE = Probe(3)


def check_micro_batches(trial: Trial) -> None:
    """Checks that micro-batches on several devices give the step of the whole batch on one."""
    devices = next(n for n in (8, 4, 2, 1) if n <= jax.device_count())
    divided = trial.train(1, devices=devices, microbatch=DEVICES * CHUNK)
    what = f"micro-batches on {devices} devices and the whole batch on one differ"
    # The probe is left out: its Adam divides first gradients by their own size, rounding included.
    a, b = ((state.replace(probe=()), metrics) for state, metrics in (trial.first, divided))
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        atol, where = TOLERANCE * max(np.abs(y).max(), 1e-2), jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, rtol=0, atol=atol, err_msg=f"{what} in {where}")


def check_labels(trial: Trial) -> None:
    """Checks that labels change nothing but the probe."""
    other, _ = trial.train(STEPS, labels=trial.batch["label"][::-1].copy())
    for field in ("params", "extra", "opt_state"):
        a, b = getattr(trial.whole[0], field), getattr(other, field)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y, err_msg=f"labels change {field}")


def check_training(trial: Trial) -> None:
    """Checks that every parameter moves, all numbers stay finite, and the state keeps its form."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(trial.whole):
        assert np.isfinite(leaf).all(), f"{jax.tree_util.keystr(path)} is not finite"
    moved = jax.tree.map(
        lambda x, y: not np.array_equal(x, y), trial.first[0].params, trial.whole[0].params
    )
    for path, changed in jax.tree_util.tree_leaves_with_path(moved):
        assert changed, f"the parameter {jax.tree_util.keystr(path)} did not move"

    def form(tree: Tree) -> Tree:
        return jax.tree.map(lambda x: (np.shape(x), np.asarray(x).dtype), tree)

    assert form(trial.start) == form(trial.whole[0]), "a step changes the state's shapes or dtypes"


def check_features(trial: Trial) -> None:
    """Checks that features are float32 rows, each independent of the rest of the batch."""
    state = trial.whole[0]
    one, many = (
        trial.method.features(state.params, state.extra, x)
        for x in (trial.images[:1], trial.images)
    )
    assert one.dtype == jnp.float32, f"features are {one.dtype}, not float32"
    assert many.ndim == 2, f"features have the shape {many.shape}, not [b, f]"
    np.testing.assert_allclose(one[0], many[0], rtol=1e-6, err_msg="features depend on other rows")
