"""Contrastive divergence for restricted Boltzmann machines, stacked into a deep belief network."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.methods import Batch, Method, Picture, Run, Tree
from ssl_jax.methods._filters import SCALE, largest_filters
from ssl_jax.methods._keys import example_keys
from ssl_jax.methods._views import check_views
from ssl_jax.models import dbn

ROWS, COLUMNS = 5, 10  # of generated images
SAMPLING_STEPS = 500  # Gibbs steps from noise to a generated image
FILTERS = (
    "Each filter is the weights between the pixels and one hidden unit of the first machine. "
    + SCALE
)
SAMPLES = (
    f"Images that the model generates: {SAMPLING_STEPS} Gibbs steps from noise in the top machine, "
    "then the expectation of every machine below. Some chains may still depend on their start."
)
STRETCHED = " The model does not know brightness and contrast of an image; both are stretched here."


def make(encoder: dbn.DBN, run: Run, *, gibbs_steps: int = 1, persistent: bool = False) -> Method:
    """CD-k (Hinton 2002) and persistent CD (Tieleman, ICML 2008), greedily machine by machine.

    The loss is the mean free energy of the data minus that of samples, which carry no gradient. Its
    gradient is that of contrastive divergence; its value is not a likelihood. Samples are drawn by
    `gibbs_steps` steps of Gibbs sampling. They start from the data or, if persistent, from the
    samples of the previous step: one chain per image of the batch, started from noise.

    The steps of the run are divided equally among the machines, the lowest first (Hinton, Osindero
    and Teh 2006, section 5). `extra["stack"]` holds the machines as they are used. After every
    step, the machine that is learning is copied there. A finished machine stays as it is, whatever
    weight decay or momentum do to its parameters.

    Features are the hidden probabilities of all machines, with zeros for machines that have not
    started to learn. Metrics: "machine", the index of the machine that learns, counted from 0;
    "reconstruction_error", the mean squared difference between visible units and their expectation
    after one step up and down.

    Args:
      encoder: a `dbn.DBN`.
      run: one view, and at least one step per machine.
      gibbs_steps: number of Gibbs steps, k.
      persistent: continue the chains instead of starting from the data.

    Raises:
      ValueError: if the encoder is not a DBN, the run does not have one view, `gibbs_steps` is
        below 1, or there are more machines than steps.
    """
    if not isinstance(encoder, dbn.DBN):
        raise ValueError(
            f'this method trains a stack of RBMs: set model.name to "dbn", not {encoder}'
        )
    check_views(run, 1)
    if gibbs_steps < 1:
        raise ValueError(f"gibbs_steps must be at least 1, got {gibbs_steps}")
    count = len(encoder.widths)
    if run.total_steps < count:
        raise ValueError(
            f"{count} machines need at least one step each, but the run has {run.total_steps}"
        )
    names = [f"rbm{i}" for i in range(count)]
    kinds = [encoder.visible] + ["bernoulli"] * (count - 1)
    dtype = encoder.dtype
    feature_machine = np.repeat(np.arange(count), encoder.widths)  # machine of each feature

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key, 1 + count)
        params = encoder.init(keys[0], batch["views"][:, 0], True)["params"]
        extra = {"stack": params, "machine": jnp.zeros((), jnp.int32)}
        if persistent:
            extra["chains"] = {
                name: noise(k, kind, params[name], run.batch_size)
                for name, kind, k in zip(names, kinds, keys[1:], strict=True)
            }
        return {"encoder": params}, extra

    def noise(key: jax.Array, kind: str, machine: dbn.Machine, count: int) -> jax.Array:
        draw = jax.random.normal if kind == "gaussian" else jax.random.bernoulli
        shape = (count, len(machine["visible_bias"]))
        return draw(key, shape=shape).astype(jnp.float32)

    def sample(i: int, machine: dbn.Machine, keys: jax.Array, v: jax.Array) -> jax.Array:
        """Continues chains v [n, d] by `gibbs_steps` steps, without gradient."""
        machine, start = jax.lax.stop_gradient((machine, v))

        def gibbs_step(v: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, k)
            return dbn.gibbs(machine, step_keys, v, kinds[i], dtype).astype(v.dtype), None

        return jax.lax.scan(gibbs_step, start, jnp.arange(gibbs_steps))[0]

    def energy(i: int, machine: dbn.Machine, v: jax.Array) -> jax.Array:
        return dbn.free_energy(machine, v, kinds[i], dtype)

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        keys = example_keys(key, batch["index"])
        images = batch["views"][:, 0]
        learned = learned_features(extra, images)
        ends = np.cumsum(encoder.widths)[:-1]
        inputs = [dbn.pixels(images, encoder.visible, encoder.sigma)]
        inputs += jnp.split(learned, ends, axis=1)[:-1]

        def learn(i: int) -> tuple[jax.Array, jax.Array]:
            machine, v = params["encoder"][names[i]], inputs[i]
            up = dbn.hidden(machine, v, dtype)
            error = jnp.square(v - dbn.expected(machine, up, kinds[i], dtype)).mean(-1)
            value = energy(i, machine, v)
            if not persistent:
                value -= energy(i, machine, sample(i, machine, keys, v))
            return value, jax.lax.stop_gradient(error)

        value, error = _switch(extra["machine"], learn, count)
        return {"energy": value, "error": error, "features": learned[:, None]}, {}

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del step
        loss = outputs["energy"].mean()
        if persistent:
            keys = jax.random.split(key, run.batch_size)

            def continue_chains(i: int) -> tuple[jax.Array, Tree]:
                machine, chains = params["encoder"][names[i]], extra["chains"]
                samples = sample(i, machine, keys, chains[names[i]])
                return energy(i, machine, samples).mean(), chains | {names[i]: samples}

            model_energy, chains = _switch(extra["machine"], continue_chains, count)
            loss, extra = loss - model_energy, extra | {"chains": chains}
        metrics = {
            "reconstruction_error": outputs["error"].mean(),
            "machine": extra["machine"].astype(jnp.float32),
        }
        return loss, (extra, metrics)

    def after_update(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
        del stats
        current_stack = {
            name: jax.tree.map(
                lambda new, old, i=i: jnp.where(extra["machine"] == i, new, old),
                params["encoder"][name],
                extra["stack"][name],
            )
            for i, name in enumerate(names)
        }
        next_machine = jnp.minimum((step + 1) * count // run.total_steps, count - 1)
        return extra | {"stack": current_stack, "machine": next_machine.astype(jnp.int32)}

    def learned_features(extra: Tree, images: jax.Array) -> jax.Array:
        probabilities = jnp.asarray(encoder.apply({"params": extra["stack"]}, images, False))
        return jnp.where(feature_machine[None] <= extra["machine"], probabilities, 0)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        del params
        return learned_features(extra, images).astype(jnp.float32)

    def filters(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws the largest filters of the first machine: [rows, columns, h, w, c]."""
        del params, key
        kernel = extra["stack"][names[0]]["kernel"].T
        return largest_filters(kernel.reshape(-1, *images.shape[1:]))

    def samples(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Generates images [rows, columns, h, w, c] from noise."""
        del params
        keys = jax.random.split(key, ROWS * COLUMNS)
        top = extra["stack"][names[-1]]

        def gibbs_step(v: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, k)
            return dbn.gibbs(top, step_keys, v, kinds[-1], dtype).astype(v.dtype), None

        v = noise(key, kinds[-1], top, ROWS * COLUMNS)
        v = jax.lax.scan(gibbs_step, v, jnp.arange(SAMPLING_STEPS))[0]
        # Every machine shows its expectation, without the noise of a last draw.
        v = dbn.expected(top, dbn.hidden(top, v, dtype), kinds[-1], dtype)
        for name, kind in zip(names[-2::-1], kinds[-2::-1], strict=True):
            v = dbn.expected(extra["stack"][name], v, kind, dtype)
        if encoder.visible == "gaussian":
            low, high = v.min(1, keepdims=True), v.max(1, keepdims=True)
            v = (v - low) / (high - low).clip(1e-12)
        return v.reshape(ROWS, COLUMNS, *images.shape[1:])

    def modules(params: Tree, extra: Tree) -> tuple[Tree, Tree]:
        del params
        return {"encoder": extra["stack"]}, {}

    sample_caption = SAMPLES + (STRETCHED if encoder.visible == "gaussian" else "")
    layout = {"stack": "replicated", "machine": "replicated"}
    layout |= {"chains": "rows"} if persistent else {}
    pictures = (
        Picture("filters", "Filters", FILTERS, filters),
        Picture("samples", "Generated images", sample_caption, samples),
    )
    return Method(
        init, encode, objective, features, after_update, layout, modules=modules, pictures=pictures
    )


def _switch(index: jax.Array, branch: Callable[[int], Tree], count: int) -> Tree:
    return jax.lax.switch(index, [partial(branch, i) for i in range(count)])
