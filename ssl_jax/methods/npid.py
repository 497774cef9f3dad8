"""NPID: non-parametric instance discrimination with a memory bank (arXiv 1805.01978)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses import instance
from ssl_jax.losses.softmax import normalise
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP


def make(
    encoder: nn.Module,
    run: Run,
    *,
    loss: str = "nce",
    temperature: float = 0.07,
    momentum: float = 0.5,
    noise_samples: int = 4096,
    proximal: float = 0.0,
    output_dim: int = 128,
) -> Method:
    """NPID (Wu et al., arXiv 1805.01978, section 3): every image is a class of its own.

    The bank holds a unit row for every image, random at first. A step compares its images with
    rows as they were before it, and moves the images' own towards their embeddings. Of an image
    that comes twice in a batch, where one epoch ends and the next begins, the second counts.

    `features` are the encoder's, as in linear evaluation; the paper's kNN is by the embedding.
    Among the metrics, "alignment" is the mean squared distance of an embedding to its own row.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: one view.
      loss: "nce", or "softmax" over all rows, for which `noise_samples` mean nothing.
      temperature: of the softmax.
      momentum: of a row of the bank; 0 as in the paper, 0.5 in the authors' code.
      noise_samples: for each image, drawn from all rows with replacement.
      proximal: weight of the squared distance to the image's own row (equation 10).
      output_dim: width of embeddings and bank.

    Raises:
      ValueError: not one view, an unknown loss, or no noise for "nce".
    """
    check_views(run, 1)
    if loss not in ("nce", "softmax"):
        raise ValueError(f"unknown loss {loss!r}; there are: nce, softmax")
    if loss == "nce" and noise_samples < 1:
        raise ValueError(f"noise_samples {noise_samples}: at least 1, or loss='softmax'")
    rows = run.num_examples
    head = MLP((output_dim,), dtype=encoder.dtype)
    networks = Chain(run.bn_group, 1, encoder=encoder, head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        network_key, bank_key = jax.random.split(key)
        params, stats = networks.init(network_key, batch["views"])
        # Filled up to a multiple of the batch: devices that divide the batch divide the bank.
        filled = -(-rows // run.batch_size) * run.batch_size
        bank = normalise(jax.random.uniform(bank_key, (filled, output_dim), minval=-1, maxval=1))
        moved = {
            "index": jnp.full((run.batch_size,), filled, jnp.int32),  # nowhere yet
            "rows": jnp.zeros((run.batch_size, output_dim), bank.dtype),
        }
        extra = {"batch_stats": stats, "bank": bank, "moved": moved}
        return params, extra | ({"log_z": jnp.zeros(())} if loss == "nce" else {})

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        found, stats = networks(params, extra["batch_stats"], batch["views"])
        outputs = {"z": found["head"][:, 0], "index": batch["index"], "features": found["encoder"]}
        return outputs, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params
        z, index = normalise(outputs["z"]), outputs["index"]
        # What the last step moved is written here, before anything is read: in its own step the
        # gradient still needs the old rows, and XLA would copy the whole bank for it.
        bank = _write(extra["bank"], **extra["moved"])
        own = jax.lax.stop_gradient(bank[index])
        if loss == "softmax":
            value, metrics = instance.instance_softmax(
                z, bank, index, rows=rows, temperature=temperature
            )
        else:
            noise = jax.random.randint(key, (len(z), noise_samples), 0, rows, jnp.int32)
            own_logits = (z * own).sum(-1) / temperature
            noise_logits = instance.products(z, bank, noise) / temperature
            measured = instance.log_partition(own_logits, noise_logits, rows=rows)
            log_z = jnp.where(step == 0, measured, extra["log_z"])
            value, metrics = instance.nce(own_logits, noise_logits, log_z=log_z, rows=rows)
            extra = extra | {"log_z": log_z}
        distance = jnp.square(z - own).sum(-1).mean()
        metrics |= {"alignment": jax.lax.stop_gradient(distance)}
        moved = normalise(momentum * own + (1 - momentum) * jax.lax.stop_gradient(z))
        extra = extra | {"bank": bank, "moved": {"index": index, "rows": moved}}
        return value + proximal * distance, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images)

    layout = {"batch_stats": "replicated", "bank": "rows", "moved": "rows"}
    layout |= {"log_z": "replicated"} if loss == "nce" else {}
    return Method(init, encode, objective, features, layout=layout)


def _write(bank: jax.Array, index: jax.Array, rows: jax.Array) -> jax.Array:
    """The bank with rows [b, d] at index [b]; of equal indices the last counts, on any device."""
    again = jnp.triu(index[:, None] == index[None, :], 1).any(1)
    return bank.at[jnp.where(again, len(bank), index)].set(rows, mode="drop")
