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
    """NPID (Wu et al., arXiv 1805.01978, section 3): treats every image as its own class.

    The bank holds one unit row per image, random at first. A step compares its images with the rows
    as they were before the step, then moves each image's own row towards its embedding. If an image
    occurs twice in a batch, where one epoch ends and the next begins, its second embedding counts.

    `features` are the encoder's, as in linear evaluation; the paper's kNN uses the embedding. The
    metric "alignment" is the mean squared distance between an embedding and its own row.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: one view.
      loss: "nce", or "softmax" over all rows, which ignores `noise_samples`.
      temperature: temperature of the softmax.
      momentum: momentum of a bank row; 0 in the paper, 0.5 in the authors' code.
      noise_samples: noise rows per image, drawn from all rows with replacement.
      proximal: weight of the squared distance to the image's own row (equation 10).
      output_dim: width of embeddings and bank.

    Raises:
      ValueError: if the run does not have one view, the loss is unknown, or "nce" has no noise
        samples.
    """
    check_views(run, 1)
    if loss not in ("nce", "softmax"):
        raise ValueError(f"unknown loss {loss!r}; choose one of: nce, softmax")
    if loss == "nce" and noise_samples < 1:
        raise ValueError(
            f"noise_samples must be at least 1, got {noise_samples}; or use loss='softmax'"
        )
    rows = run.num_examples
    head = MLP((output_dim,), dense_init="torch", dtype=encoder.dtype)
    networks = Chain(run.bn_group, 1, encoder=encoder, head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        network_key, bank_key = jax.random.split(key)
        params, stats = networks.init(network_key, batch["views"])
        # Padded to a multiple of the batch size: devices that divide the batch then divide the
        # bank.
        padded_rows = -(-rows // run.batch_size) * run.batch_size
        bank = normalise(
            jax.random.uniform(bank_key, (padded_rows, output_dim), minval=-1, maxval=1)
        )
        moved = {
            # Out of range: nothing to write yet.
            "index": jnp.full((run.batch_size,), padded_rows, jnp.int32),
            "rows": jnp.zeros((run.batch_size, output_dim), bank.dtype),
        }
        extra = {"batch_stats": stats, "bank": bank, "moved": moved}
        return params, extra | ({"log_z": jnp.zeros(())} if loss == "nce" else {})

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        modules, stats = networks(params, extra["batch_stats"], batch["views"])
        outputs = {
            "z": modules["head"][:, 0],
            "index": batch["index"],
            "features": modules["encoder"],
        }
        return outputs, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params
        z, index = normalise(outputs["z"]), outputs["index"]
        # The rows that the last step moved are written here, before anything is read. In its own
        # step the gradient still needs the old rows, and XLA would copy the whole bank for it.
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
            estimate = instance.log_partition(own_logits, noise_logits, rows=rows)
            log_z = jnp.where(step == 0, estimate, extra["log_z"])
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
    """Writes rows [b, d] into the bank at index [b]; of equal indices, the last one wins."""
    repeated_later = jnp.triu(index[:, None] == index[None, :], 1).any(1)
    return bank.at[jnp.where(repeated_later, len(bank), index)].set(rows, mode="drop")
