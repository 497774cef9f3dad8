"""Memory of a large batch in micro-batches, and the error of its gradient.

    python -m benchmarks.microbatch --batch=4096 --microbatch=256

Runs a SimCLR step of a small ResNet on random images in three ways: the large batch in
micro-batches, the large batch whole, and one micro-batch alone. Prints the memory of each by the
compiler's analysis (arguments, outputs and temporaries), the seconds of a step, and the relative
distance of the large batch's two gradients. In float32 rounding switches some ReLUs on or off,
which adds to the distance. With --dtype=float64 almost none switch, so any other error would be
visible.
"""

import time
from typing import Any

from absl import app, flags

FLAGS = flags.FLAGS
SIZE = 24


def main(_: Any) -> None:
    """Runs the benchmark; see the module's docstring."""
    import jax
    import jax.numpy as jnp
    import optax

    jax.config.update("jax_enable_x64", FLAGS.dtype == "float64")
    small, large = FLAGS.microbatch, FLAGS.batch
    results = {}
    for name, batch, chunk in (
        ("one alone", small, 0),
        ("micro-batches", large, small),
        ("whole", large, 0),
    ):
        results[name] = _step(batch, chunk)
        _, size, seconds = results[name]
        ratio = size / results["one alone"][1]
        line = f"{name:14} {size / 2**20:8.0f} MiB  {ratio:5.2f} x one alone  {seconds:7.2f} s"
        print(line, flush=True)
    chunked, whole = results["micro-batches"][0], results["whole"][0]
    gap = optax.tree.norm(jax.tree.map(jnp.subtract, chunked, whole)) / optax.tree.norm(whole)
    print(f"relative distance of the gradients: {float(gap):.1e}")


def _step(batch_size: int, microbatch: int) -> tuple[Any, int, float]:
    """Returns (gradient, bytes, seconds of the second step)."""
    import jax
    import jax.numpy as jnp
    import optax

    from ssl_jax import methods, models, parallel
    from ssl_jax.training.probe import Probe
    from ssl_jax.training.state import init_fn, new_state
    from ssl_jax.training.step import make_train_step

    # A BatchNorm group is the rows of one micro-batch, so groups are the same in all three ways.
    group = 2 * FLAGS.microbatch
    dtype = jnp.dtype(FLAGS.dtype)
    encoder = models.get("resnet10", width=0.25, stem="cifar", dtype=dtype)
    seen = {"views": jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), dtype)}
    run = methods.Run(seen, 2, batch_size, batch_size, bn_group=group)
    method = methods.get("simclr")(encoder, run, temperature=0.2)
    # An optimizer that changes no parameters and keeps the gradient as its state.
    keep = optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda updates, *_: (jax.tree.map(jnp.zeros_like, updates), updates),
    )
    spec = {
        "views": jax.ShapeDtypeStruct((batch_size, 2, SIZE, SIZE, 3), dtype),
        "index": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }
    batch = {
        "views": jax.random.uniform(jax.random.key(0), spec["views"].shape, dtype),
        "index": jnp.arange(batch_size, dtype=jnp.int32),
    }
    mesh = parallel.make_mesh(jax.devices()[:1])
    probe = Probe(0)
    with jax.set_mesh(mesh):
        state = new_state(init_fn(method, keep, probe, spec, seed=0), method.layout, mesh)
        function = make_train_step(
            method, keep, lambda _: jnp.zeros(()), probe, seed=0, mesh=mesh, microbatch=microbatch
        )
        train_step = jax.jit(function).lower(state, batch).compile()
        jax.block_until_ready(train_step(state, batch))
        start = time.perf_counter()
        new, _ = jax.block_until_ready(train_step(state, batch))
    memory = train_step.memory_analysis()
    size = sum(getattr(memory, f"{part}_size_in_bytes") for part in ("argument", "output", "temp"))
    return new.opt_state, size, time.perf_counter() - start


if __name__ == "__main__":
    flags.DEFINE_integer("batch", 4096, "Images of the large batch.")
    flags.DEFINE_integer("microbatch", 256, "Images of a micro-batch.")
    flags.DEFINE_string("dtype", "float32", "Type of images and activations: float32 or float64.")
    app.run(main)
