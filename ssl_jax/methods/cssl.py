"""CSSL: pseudo-labels from a density, refined by adversaries."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import entr

from ssl_jax.losses import discriminate, fool, same_pair
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._momentum import moving_average
from ssl_jax.methods._rows import divided
from ssl_jax.methods._views import check_views
from ssl_jax.models import mixture
from ssl_jax.models.chain import Chain
from ssl_jax.models.decoder import Decoder
from ssl_jax.models.heads import MLP, DropoutMLP

FIRST = ("encoder", "code")  # what makes the first embedding
SHRINKAGE = 1e-3  # of the covariance, as in the authors' code of whitening
ROWS = 10  # of the heaviest components, one row of samples each


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
    """CSSL: same or different, decided by a density that adversaries impose on the codes.

    The first embedding is the code of a copy of the network that follows it slowly, whitened by
    the batch. On-line EM fits a mixture of Gaussians to it; the pseudo-label of an image is its
    posterior over the components, given both views. Four losses, in one step:

    A discriminator tells codes from draws of the mixture.
    The encoder makes codes that it takes for draws, as in adversarial autoencoders.
    The cosine of two codes decides whether their pseudo-labels are the same, and codes of the same
      come near each other (`losses.same_pair`).
    A decoder makes the views again from their codes: mean squared error.

    The discriminator learns from the first alone and the decoder from the last alone; encoder and
    code learn from all but the first. Codes are normalised by the batch, without scale, and the
    first embedding is whitened: neither can shrink to a point.

    No one paper has all of this. Adversary: Makhzani et al. (arXiv 1511.05644), section 2, with
    the mixture as prior. On-line EM: Cappé and Moulines (arXiv 0712.4273). Pseudo-labels that
    decide of pairs: Hsu et al. (arXiv 1901.00544).

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      components: of the mixture, at most the images of a batch.
      em_power, em_offset: step t moves the statistics by (t + 1 + em_offset)^-em_power; a power in
        (0.5, 1], so that they come to rest.
      variance_floor: of the components; the whole has variance 1.
      min_share: a component with at most this part of an equal share begins anew.
      momentum: of the copy that makes the first embedding; 1: it stays as it was initialised.
      fool_weight, distance_weight, reconstruction_weight: of the losses, that of the decision
        having 1.
      trust: how probably two images of one component are truly the same, in [0, 1].
      temperature, threshold: of the decision.
      dropout: in the discriminator's hidden layers.
      code_dim: of codes and mixture.
      hidden_dim: width of the hidden layers of code and discriminator.
      decoder_width: channels of the decoder's last layers.

    Raises:
      ValueError: not two views, more components than images, or a number out of its range.
    """
    check_views(run, 2)
    if not 0 < components <= run.batch_size:
        raise ValueError(
            f"{components} components begin at as many images of a batch of {run.batch_size}: "
            "set method.components to at most train.batch_size"
        )
    if not 0.5 < em_power <= 1 or em_offset < 0:
        raise ValueError(f"em_power {em_power}, em_offset {em_offset}: want (0.5, 1] and 0 or more")
    if not 0 <= dropout < 1 or not 0 <= min_share < 1:
        raise ValueError(f"dropout {dropout}, min_share {min_share}: want both in [0, 1)")
    size, dtype = run.seen["views"].shape[1], encoder.dtype
    code = MLP((hidden_dim, code_dim), last_norm="plain", dtype=dtype)
    decoder = Decoder(size, decoder_width, dtype=dtype)
    networks = Chain(run.bn_group, 2, encoder=encoder, code=code, decoder=decoder)
    discriminator = DropoutMLP((hidden_dim, hidden_dim, 1), dropout)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        params, stats = networks.init(keys[0], batch["views"])
        first, first_stats = ({n: tree[n] for n in FIRST} for tree in (params, stats))
        found = discriminator.init(keys[1], jnp.zeros((1, code_dim)), key)
        params["discriminator"] = found["params"]
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

        def judge(params: Tree, z: jax.Array, key: jax.Array) -> Any:
            return discriminator.apply({"params": params}, z, key)

        judging = params["discriminator"]
        # Drawn by all devices alike, but each judges its own rows.
        prior = mixture.draw(mixture.gaussians(fitted, variance_floor), keys[1], z.shape[:2])
        prior = divided(prior)
        telling, metrics = discriminate(
            judge(judging, prior, keys[2]), judge(judging, lax.stop_gradient(z), keys[3])
        )
        fooling = fool(judge(lax.stop_gradient(judging), z, keys[3]))
        deciding, distance, found = same_pair(
            z, posterior, trust=trust, temperature=temperature, threshold=threshold
        )
        error = outputs["error"].mean()
        loss = telling + fool_weight * fooling + deciding + distance_weight * distance
        metrics |= found | {
            "pair_loss": deciding,
            "pair_distance": distance,
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

    def samples(params: Tree, extra: Tree, key: jax.Array, count: int) -> jax.Array:
        """In equal runs from each of the heaviest components, the heaviest first."""
        prior = mixture.gaussians(extra["mixture"], variance_floor)
        heaviest = jnp.argsort(-prior.log_weight)
        runs = min(components, ROWS)
        z = mixture.sample(prior, key, heaviest[jnp.arange(count) * runs // count])
        stats = extra["batch_stats"]["online"]["decoder"]
        images = decoder.apply({"params": params["decoder"], "batch_stats": stats}, z, False)
        return jnp.asarray(images, jnp.float32)

    return Method(init, encode, objective, features, after_update, samples=samples)


def _whiten(x: jax.Array) -> jax.Array:
    """Rows [b, v, d] less their mean, by the inverse Cholesky factor of their covariance.

    Source: Ermolov et al. (arXiv 2007.06346), section 3.
    """
    rows = lax.stop_gradient(x).reshape(-1, x.shape[-1])
    rows = rows - rows.mean(0, keepdims=True)
    covariance = jnp.matmul(rows.T, rows, precision=lax.Precision.HIGHEST) / len(rows)
    identity = jnp.eye(len(covariance))
    factor = jnp.linalg.cholesky(covariance + SHRINKAGE * identity)
    # Of the small matrix, so that rows stay on their devices.
    inverse = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    return jnp.matmul(rows, inverse.T, precision=lax.Precision.HIGHEST).reshape(x.shape)
