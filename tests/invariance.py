"""Ten steps of a real run on any number of devices and processes, for `test_invariance`.

As a program, runs one of several processes:

    invariance.py PROCESS PROCESSES DEVICES PORT OUT.npz
"""

import hashlib
import sys

import emitters
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny

from ssl_jax import methods, parallel
from ssl_jax.data import pipeline, sources
from ssl_jax.inputs.image.make import input_from_views
from ssl_jax.inputs.image.recipes import RECIPES
from ssl_jax.optim import optimizers
from ssl_jax.training import state as states
from ssl_jax.training import step
from ssl_jax.training.probe import Probe

# Enough rows and a small enough rate that ten steps amplify float32 rounding only a little. The
# amplification differs between CPUs.
B, SIZE, STEPS, CLASSES, RATE = 64, 4, 10, 10, 0.1
VIEWS = tuple(view._replace(size=SIZE) for view in RECIPES["digits"])


def batches(host):
    """Returns this host's rows of ten batches of digits."""
    source = sources.open_source("digits", data_dir="", split="train")
    return list(
        pipeline.train_batches(
            source, input_from_views(VIEWS, seed=4), batch_size=B, seed=4, start_step=0,
            num_steps=STEPS, host=host,
        )
    )  # fmt: skip


def row_hashes(rows):
    """Returns one hash per row of every batch, over images, index and label."""
    return np.array(
        [
            [
                hashlib.sha256(b"".join(batch[name][i].tobytes() for name in sorted(batch)))
                .hexdigest()
                for i in range(len(batch["index"]))
            ]
            for batch in rows
        ]
    )  # fmt: skip


def _record_gradient():
    """Transformation that keeps the gradient in its state, before LARS."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params), lambda updates, *_: (updates, updates)
    )


def trajectory(rows, dtype, devices=None):
    """Trains SimCLR with BatchNorm under LARS.

    Returns:
      {name: array} after the first and the tenth step. A name is "STEP/WHAT/LEAF", where WHAT is
      loss, gradient, statistics or params.
    """
    encoder = tiny.Encoder(dtype=dtype)
    run = methods.Run(tiny.seen(2, SIZE), STEPS, B, num_examples=1297)
    method = methods.get("simclr")(encoder, run, temperature=0.2, hidden_dim=16, output_dim=8)
    lars, schedule = optimizers.make(
        "lars", lr=RATE, lr_rule="constant", batch_size=B, warmup_steps=0, total_steps=STEPS,
        weight_decay=1e-4,
    )  # fmt: skip
    tx, probe = optax.chain(_record_gradient(), lars), Probe(CLASSES)
    mesh = parallel.make_mesh(devices)

    def cast(tree):
        floating = jnp.floating
        return jax.tree.map(
            lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, floating) else x, tree
        )

    spec = {
        "views": jax.ShapeDtypeStruct((B, 2, SIZE, SIZE, 3), dtype),
        "index": jax.ShapeDtypeStruct((B,), jnp.int32),
    }
    arrays = {}
    with jax.set_mesh(mesh):
        start = states.init_fn(method, tx, probe, spec, seed=1)
        state = states.new_state(lambda: cast(start()), method.layout, mesh)
        function = jax.jit(
            step.make_train_step(method, tx, schedule, probe, seed=1, mesh=mesh),
            compiler_options=emitters.AS_IN_A_RUN if dtype == jnp.float32 else None,
        )
        for k, batch in enumerate(rows, 1):
            batch = batch | {"views": batch["views"].astype(dtype)}
            state, metrics = function(state, parallel.to_global(batch, mesh))
            if k not in (1, STEPS):
                continue
            trees = {
                "loss": metrics["loss"],
                "gradient": state.opt_state[0],
                "statistics": state.extra["batch_stats"],
                "params": state.params,
            }
            for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
                kind = path[0].key
                arrays[f"{k}/{kind}/{jax.tree_util.keystr(path[1:])}"] = np.asarray(leaf)
    return arrays


def main():
    process, processes, devices, port = map(int, sys.argv[1:5])
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", processes, process)
    assert jax.device_count() == devices * processes
    rows = batches((process, processes))
    arrays = {"hashes": row_hashes(rows)}
    for dtype in (jnp.float32, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            steps = trajectory(rows, dtype)
        arrays |= {f"{jnp.dtype(dtype)}/{name}": leaf for name, leaf in steps.items()}
    np.savez(sys.argv[5], **arrays)


if __name__ == "__main__":
    main()
