"""Size of the first update of the `:cifar10` recipes beside that of their sources.

    python -m benchmarks.lars_steps --data_dir=DATA_DIR

For each `configs/*.py:cifar10` that trains by LARS or SGD, computes the gradient of the method's
loss at its initial weights on real views. From this gradient, two rules make one update at the peak
learning rate, without momentum of earlier steps: the config's optimizer, and the rule of the
recipe's source, which is written below in NumPy. Prints the mean over layers of |update| / |weight|
for both. Biases and normalisation parameters are left out. With `model.zero_gamma`, most
convolutions start with a gradient of 0: solo-learn then makes no update; the others still decay.

The gradient comes from --batch images. The peak rate is that of the recipe's own batch.
"""

import importlib
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

FLAGS = flags.FLAGS
Arrays = dict[str, np.ndarray]


class Source(NamedTuple):
    """The optimizer of a recipe's source: `rule` of `source_update`, peak rate, weight decay."""

    rule: str
    peak: float
    weight_decay: float


SOURCES = {
    # solo-learn, scripts/pretrain/cifar/*.yaml: rate * batch / 256, batch 256.
    "barlow_twins": Source("solo-learn", 0.3, 1e-4),
    "byol": Source("solo-learn", 1.0, 1e-5),
    "dino": Source("solo-learn", 0.3, 1e-6),
    "moco_v3": Source("solo-learn", 0.3, 1e-6),
    "swav": Source("solo-learn", 0.6, 1e-6),
    "vicreg": Source("solo-learn", 0.3, 1e-4),
    # README of google-research/simclr, as published with SimCLR and of today: 1.0 * 512 / 256.
    "simclr": Source("simclr", 2.0, 1e-6),
    "simclr_v2": Source("simclr", 2.0, 1e-4),
    # MoCo's notebook for CIFAR-10; solo-learn's mocov2plus.yaml; SimSiam (arXiv 2011.10566),
    # appendix D: 0.03 * 512 / 256; lemniscate.pytorch, cifar.py.
    "moco_v1": Source("sgd", 0.06, 5e-4),
    "moco_v2": Source("sgd", 0.3, 1e-4),
    "npid": Source("sgd", 0.03, 5e-4),
    "simsiam": Source("sgd", 0.06, 5e-4),
}


def main(_: Any) -> None:
    """Runs the benchmark; see the module's docstring."""
    print("| variant | rule of the source | ours | source | ours / source |\n|---|---|---|---|---|")
    for name in FLAGS.methods or SOURCES:
        config = importlib.import_module(f"configs.{name}").get_config("cifar10")
        source = SOURCES[name]
        params, grads, ours = first_update(config)
        theirs = {path: source_update(source, params[path], g) for path, g in grads.items()}
        a, b = mean_relative_length(ours, params), mean_relative_length(theirs, params)
        print(f"| {name} | {source.rule} | {a:.2e} | {b:.2e} | {a / b:.3g} |", flush=True)


def mean_relative_length(updates: Arrays, params: Arrays) -> float:
    """Returns the mean over layers of |update| / |weight|."""
    lengths = [np.linalg.norm(updates[path]) / np.linalg.norm(w) for path, w in params.items()]
    return float(np.mean(lengths))


def source_update(source: Source, w: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Returns the source's first update of a weight at the peak rate, in float64."""
    w, g = w.astype(np.float64), g.astype(np.float64)
    w_norm, g_norm = float(np.linalg.norm(w)), float(np.linalg.norm(g))
    decayed = g + source.weight_decay * w
    if source.rule == "sgd":
        return -source.peak * decayed
    if source.rule == "simclr":  # lars_optimizer.py
        norm = float(np.linalg.norm(decayed))
        ratio = 0.001 * w_norm / norm if w_norm and norm else 1.0
        return -source.peak * ratio * decayed
    if not w_norm or not g_norm:  # solo-learn, utils/lars.py, with clip_lr
        return -source.peak * g
    ratio = 0.02 * w_norm / (g_norm + source.weight_decay * w_norm + 1e-8)
    return -source.peak * min(ratio / source.peak, 1.0) * decayed


def first_update(config: ConfigDict) -> tuple[Arrays, Arrays, Arrays]:
    """Returns initial weights, gradients and the config's first updates by path, without biases."""
    import jax
    import jax.numpy as jnp

    from ssl_jax import components, parallel
    from ssl_jax.training import state as states

    config.data.dir = FLAGS.data_dir
    optimizer = at_peak(config)
    batch_size = config.train.batch_size
    config.train.update(batch_size=FLAGS.batch, seed=FLAGS.seed)
    config.model.bn_group = config.model.bn_group * FLAGS.batch // batch_size
    if "freeze_epochs" in config.method:
        config.method.freeze_epochs = 0.0  # the step is that after the freeze
    source = components.open_source(config, config.data.split)
    total = components.total_steps(config, source.size)
    method = components.make_method(config, total, source.size, devices=1)
    batches = components.train_batches(config, source, start_step=0, num_steps=1)
    batch = {name: rows for name, rows in next(batches).items() if name != "label"}
    batches.close()
    device = components.make_input(config).device
    key = jax.random.key(FLAGS.seed)

    def gradient(params: Any, extra: Any, batch: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            outputs, _ = method.encode(params, extra, device(batch), key)
            value, _ = method.objective(params, extra, outputs, key, jnp.zeros((), jnp.int32))
            return value

        return jax.grad(loss)(params)

    spec, mesh = components.batch_spec(config), parallel.make_mesh(jax.devices()[:1])
    with jax.set_mesh(mesh):
        params, extra = jax.jit(lambda: states.init_method(method, spec, FLAGS.seed))()
        grads = jax.jit(gradient)(params, extra, parallel.to_global(batch, mesh))
    tx, _ = components.make_optimizer(optimizer, source.size, total, method.turns)
    updates, _ = tx.update(grads, tx.init(params), params)
    return _weights(params), _weights(grads), _weights(updates)


def at_peak(config: ConfigDict) -> ConfigDict:
    """Returns a copy of the config whose first step is at the peak rate."""
    config = config.copy_and_resolve_references()
    for settings in (config.optim, *config.optim.groups.values()):
        with settings.unlocked():
            settings.update(warmup_epochs=0.0, schedule="constant")
    return config


def _weights(tree: Any) -> Arrays:
    """Returns the arrays with more than one axis by path."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if leaf.ndim > 1}


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Folder where tensorflow-datasets prepared cifar10.")
    flags.DEFINE_integer("batch", 64, "Images in the batch of the gradient.")
    flags.DEFINE_integer("seed", 0, "Seed of weights and random numbers.")
    flags.DEFINE_list("methods", None, "Config files; all by default.")
    app.run(main)
