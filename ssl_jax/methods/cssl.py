"""CSSL: pseudo-labels from a density model, refined by adversarial training."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import entr

from ssl_jax.losses import discriminate, fool, same_pair
from ssl_jax.methods import Batch, Method, Picture, Run, Tree
from ssl_jax.methods._momentum import moving_average
from ssl_jax.methods._rows import shard_rows
from ssl_jax.methods._views import check_views
from ssl_jax.models import mixture
from ssl_jax.models.chain import Chain
from ssl_jax.models.decoder import Decoder
from ssl_jax.models.heads import MLP, DropoutMLP

FIRST = ("encoder", "code")  # modules of the network that computes the first embedding
SHRINKAGE = 1e-3  # added to the covariance, as in the whitening code of Ermolov et al.
ROWS, COLUMNS = 10, 10  # generated images: one row for each of the heaviest components
CAPTION = (
    "Samples of the density that the method has learned; none of them is in the data. Each row "
    "comes from one component of the mixture, the heaviest first."
)


def make(
    encoder: nn.Module,
    run: Run,
    *,
    components: int = 128,
    em_power: float = 0.6,
    em_offset: float = 10.0,
    variance_floor: float = 0.1,
    min_share: float = 0.1,
    momentum: float = 0.99,
    fool_weight: float = 0.2,
    trust: float = 0.1,
    temperature: float = 0.1,
    threshold: float = 0.5,
    distance_weight: float = 0.01,
    reconstruction_weight: float = 1.0,
    dropout: float = 0.1,
    code_dim: int = 16,
    hidden_dim: int = 256,
    decoder_width: int = 64,
) -> Method:
    """CSSL: decides whether two images are the same, guided by a density that adversaries impose.

    The first embedding is the code of a slowly following copy of the network, whitened by the
    batch. On-line EM fits a mixture of Gaussians to it. The pseudo-label of an image is its
    posterior over the components, given both views. One step minimises four losses:

    1. A discriminator distinguishes codes from samples of the mixture.
    2. The encoder learns to produce codes that the discriminator takes for samples.
    3. The cosine of two codes predicts whether their pseudo-labels are the same, and codes with the
       same pseudo-label move closer together (`losses.same_pair`).
    4. A decoder reconstructs the views from their codes, with mean squared error.

    The discriminator learns only from loss 1 and the decoder only from loss 4. Encoder and code
    layers learn from losses 2 to 4. Codes are batch-normalised without scale, and the first
    embedding is whitened, so neither can shrink to a point.

    The combination is not from a single paper. Adversary: Makhzani et al. (arXiv 1511.05644),
    section 2, with the mixture as prior. On-line EM: Cappé and Moulines (arXiv 0712.4273).
    Pseudo-labels that decide about pairs: Hsu et al. (arXiv 1901.00544).

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      components: components of the mixture; at most the batch size.
      em_power: exponent in (0.5, 1]. Step t moves the statistics by (t + 1 + em_offset)^-em_power,
        so that they converge.
      em_offset: offset of the step in that rate, at least 0.
      variance_floor: smallest variance of a component; the whitened data have variance 1.
      min_share: a component with at most this fraction of an equal share is re-seeded; in [0, 1).
      momentum: momentum of the copy that computes the first embedding. At 1 the copy keeps its
        initial weights.
      fool_weight: weight of loss 2.
      trust: probability in [0, 1] that two images of one component are truly the same.
      temperature: temperature of the same-or-different decision.
      threshold: cosine at which the decision is undecided.
      distance_weight: weight of the distance between codes of the same pseudo-label. The decision
        itself has weight 1.
      reconstruction_weight: weight of loss 4.
      dropout: dropout rate in the discriminator's hidden layers, in [0, 1).
      code_dim: dimension of codes and mixture.
      hidden_dim: width of the hidden layers of code network and discriminator.
      decoder_width: channels of the decoder's last layers.

    Raises:
      ValueError: if there are not two views of one size, there are more components than images in a
        batch, or a number is out of its range.
    """
    check_views(run, 2)
    if not 0 < components <= run.batch_size:
        raise ValueError(
            f"{components} components need as many images to start from, but a batch has "
            f"{run.batch_size}: set method.components to at most train.batch_size"
        )
    if not 0.5 < em_power <= 1 or em_offset < 0:
        raise ValueError(
            f"em_power must be in (0.5, 1], got {em_power}; "
            f"em_offset must be at least 0, got {em_offset}"
        )
    if not 0 <= dropout < 1 or not 0 <= min_share < 1:
        raise ValueError(f"dropout and min_share must be in [0, 1), got {dropout} and {min_share}")
    size, dtype = run.seen["views"].shape[1], encoder.dtype
    code = MLP((hidden_dim, code_dim), last_norm="plain", dtype=dtype)
    decoder = Decoder(size, decoder_width, run.seen["views"].shape[-1], dtype=dtype)
    networks = Chain(run.bn_group, 2, encoder=encoder, code=code, decoder=decoder)
    discriminator = DropoutMLP((hidden_dim, hidden_dim, 1), dropout)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        params, stats = networks.init(keys[0], batch["views"])
        first, first_stats = ({n: tree[n] for n in FIRST} for tree in (params, stats))
        variables = discriminator.init(keys[1], jnp.zeros((1, code_dim)), key)
        params["discriminator"] = variables["params"]
        stats = {"online": stats, "first": first_stats}
        prior = mixture.empty(components, code_dim)
        return params, {"batch_stats": stats, "first": first, "mixture": prior}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        stats, views = extra["batch_stats"], batch["views"]
        online, online_stats = networks(params, stats["online"], views)
        first, first_stats = networks(extra["first"], stats["first"], views, upto=FIRST[-1])
        outputs = {
            "code": online["code"],
            "first": first["code"],
            "error": jnp.square(online["decoder"] - views).mean((1, 2, 3, 4)),
            "features": online["encoder"],
        }
        return outputs, {"online": online_stats, "first": first_stats}

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        keys = jax.random.split(key, 4)
        z = outputs["code"]
        rate = (step + 1 + em_offset) ** -em_power
        fitted, posterior = mixture.update(
            extra["mixture"],
            _whiten(outputs["first"]),
            rate,
            keys[0],
            floor=variance_floor,
            min_share=min_share,
        )

        def discriminator_logits(params: Tree, z: jax.Array, key: jax.Array) -> Any:
            return discriminator.apply({"params": params}, z, key)

        discriminator_params = params["discriminator"]
        # All devices draw the same samples, but each device judges only its own rows.
        prior = mixture.draw(mixture.gaussians(fitted, variance_floor), keys[1], z.shape[:2])
        prior = shard_rows(prior)
        discriminator_loss, metrics = discriminate(
            discriminator_logits(discriminator_params, prior, keys[2]),
            discriminator_logits(discriminator_params, lax.stop_gradient(z), keys[3]),
        )
        fool_loss = fool(discriminator_logits(lax.stop_gradient(discriminator_params), z, keys[3]))
        pair_loss, pair_distance, pair_metrics = same_pair(
            z, posterior, trust=trust, temperature=temperature, threshold=threshold
        )
        error = outputs["error"].mean()
        loss = (
            discriminator_loss
            + fool_weight * fool_loss
            + pair_loss
            + distance_weight * pair_distance
        )
        metrics |= pair_metrics | {
            "pair_loss": pair_loss,
            "pair_distance": pair_distance,
            "reconstruction_error": error,
            "target_entropy": entr(posterior).sum(-1).mean(),
            "marginal_entropy": entr(posterior.mean(0)).sum(),
        }
        loss += reconstruction_weight * error
        return loss, (extra | {"mixture": fitted}, lax.stop_gradient(metrics))

    def after_update(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
        del step
        first = moving_average(extra["first"], params, momentum)
        return {**extra, "batch_stats": stats, "first": first}

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"]["online"], images)

    def samples(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws one row of images from each of the heaviest components, heaviest first."""
        del images
        prior = mixture.gaussians(extra["mixture"], variance_floor)
        rows = min(components, ROWS)
        z = mixture.sample(prior, key, jnp.repeat(jnp.argsort(-prior.log_weight)[:rows], COLUMNS))
        stats = extra["batch_stats"]["online"]["decoder"]
        drawn = decoder.apply({"params": params["decoder"], "batch_stats": stats}, z, False)
        drawn = jnp.asarray(drawn, jnp.float32)
        return drawn.reshape(rows, COLUMNS, *drawn.shape[1:])

    pictures = (Picture("samples", "Generated images", CAPTION, samples),)
    return Method(init, encode, objective, features, after_update, pictures=pictures)


def _whiten(x: jax.Array) -> jax.Array:
    """Whitens rows [b, v, d]: subtracts their mean and decorrelates by a Cholesky factor.

    Rows are multiplied by the inverse Cholesky factor of their covariance. The result carries no
    gradient.

    Source: Ermolov et al. (arXiv 2007.06346), section 3.
    """
    rows = lax.stop_gradient(x).reshape(-1, x.shape[-1])
    rows = rows - rows.mean(0, keepdims=True)
    covariance = jnp.matmul(rows.T, rows, precision=lax.Precision.HIGHEST) / len(rows)
    identity = jnp.eye(len(covariance))
    factor = jnp.linalg.cholesky(covariance + SHRINKAGE * identity)
    # Only the small matrix is inverted, so that rows stay on their devices.
    inverse = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    return jnp.matmul(rows, inverse.T, precision=lax.Precision.HIGHEST).reshape(x.shape)
