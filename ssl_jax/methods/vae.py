"""Variational autoencoder (Kingma and Welling, arXiv 1312.6114)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses.reconstruction import cross_entropy, free_bits, kl_to_standard_normal
from ssl_jax.methods import Batch, Method, Picture, Run, Tree
from ssl_jax.methods._frozen import FrozenNetwork, fetched
from ssl_jax.methods._keys import example_keys
from ssl_jax.methods._reconstruction import mean_squared_error, reconstruction_metrics
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.decoder import Decoder
from ssl_jax.models.heads import MLP

LIKELIHOODS = ("gaussian", "bernoulli")
ACTIVE = 0.01  # variance of the mean over images above which a latent dimension counts as active
ROWS, COLUMNS = 5, 10  # of generated images
RECONSTRUCTIONS = (
    "Evaluation images, and what the decoder makes of the mean of their latent code. Detail that "
    "the code does not hold is blurred: the decoder shows the mean of all likely images."
)
SAMPLES = (
    "Images that the decoder makes of codes drawn from the prior; none of them is in the data."
)
PATHS = (
    "Each row starts and ends with the reconstructions of two evaluation images. Between them, the "
    "code moves in equal steps on a straight line."
)


def make(
    encoder: nn.Module,
    run: Run,
    *,
    latent_dim: int = 128,
    likelihood: str = "gaussian",
    sigma: float = 0.1,
    beta: float = 1.0,
    free_nats: float = 0.0,
    free_group: int = 1,
    features_from: FrozenNetwork | None = None,
    decoder_width: int = 64,
) -> Method:
    """Variational autoencoder: codes images by normal distributions from which it redraws them.

    A linear layer behind the features gives mean and log-variance of each latent dimension. The
    loss is the negative evidence lower bound in nats per image: minus the log-likelihood of all
    pixels given one draw of the code, plus `beta` times the Kullback-Leibler divergence of the code
    from a standard normal prior, in closed form (section 3 and appendices B and C).

    Pixels are in [0, 1]. The decoder's output is the mean of a Gaussian of deviation `sigma`, or
    the probability of a Bernoulli unit, whose log-likelihood is then minus the cross-entropy.

    With `features_from`, the pixels' mean squared error in the Gaussian likelihood is replaced by
    the mean squared error of the outputs of all blocks of a frozen network, with equal weight for
    each block. The loss is then not a bound of a likelihood of pixels. Source: Hou et al.
    (arXiv 1610.00291), section 3.2.

    Metrics: "reconstruction_error", the mean squared error per pixel; "reconstruction_chance", that
    of the batch's mean image; "reconstruction_loss" and "kl", the parts of the bound in nats;
    "active_dimensions", the number of latent dimensions whose mean has a variance above 0.01 over
    the batch (Burda et al., arXiv 1509.00519, section 5.2).

    Args:
      encoder: linen module, (images [n, h, w, c], train) -> [n, f], with an attribute `dtype`.
      run: one view.
      latent_dim: dimensions of the code.
      likelihood: "gaussian" or "bernoulli" pixels.
      sigma: standard deviation of Gaussian pixels, or of the features of `features_from`.
      beta: weight of the divergence; 1 for the bound (Higgins et al., ICLR 2017, section 2).
      free_nats: each group of dimensions costs at least this divergence, in the mean over the batch
        (free bits, Kingma et al., arXiv 1606.04934, appendix C.8); 0 for the bound.
      free_group: latent dimensions per group.
      features_from: run, export or weights file of a frozen network; reconstruct its features
        instead of pixels.
      decoder_width: channels of the decoder's last layers.

    Raises:
      ValueError: if the run does not have one view, a number is out of its range, groups do not
        divide the dimensions, or a Bernoulli likelihood meets features.
    """
    check_views(run, 1)
    _check(latent_dim, likelihood, sigma, beta, free_nats, free_group)
    if features_from is not None and likelihood != "gaussian":
        raise ValueError(
            f"features_from needs likelihood='gaussian', got {likelihood!r}: features are not "
            "probabilities"
        )
    _, size, _, channels = run.seen["views"].shape
    pixels = size**2 * channels
    wide_dtype = jnp.promote_types(encoder.dtype, jnp.float32)
    posterior = MLP((2 * latent_dim,), dtype=wide_dtype)
    inference = Chain(run.bn_group, 1, encoder=encoder, posterior=posterior)
    decoder = Decoder(size, decoder_width, channels, logits=True, dtype=encoder.dtype)
    generator = Chain(run.bn_group, 1, decoder=decoder)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        params, stats = inference.init(keys[0], batch["views"])
        codes = jnp.zeros((len(batch["index"]), 1, latent_dim), wide_dtype)
        decoder_params, decoder_stats = generator.init(keys[1], codes)
        extra = {"batch_stats": stats | decoder_stats}
        if features_from is not None:
            extra["frozen"] = fetched(features_from.weights)
        return params | decoder_params, extra

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        stats, images = extra["batch_stats"], batch["views"][:, 0]
        outputs, inference_stats = inference(params, stats, batch["views"])
        mean, log_variance = jnp.split(outputs["posterior"][:, 0], 2, axis=-1)
        keys = example_keys(key, batch["index"])
        normal = jax.vmap(lambda k: jax.random.normal(k, (latent_dim,), mean.dtype))(keys)
        code = mean + jnp.exp(log_variance / 2) * normal
        decoded, decoder_stats = generator(params, stats, code[:, None])
        logits = decoded["decoder"][:, 0]
        named_outputs = {
            "cost": reconstruction_cost(extra, images, logits),
            "divergence": kl_to_standard_normal(mean, log_variance),
            "mean": mean,
            "error": mean_squared_error(images, nn.sigmoid(logits)),
            "images": images,
            "features": outputs["encoder"],
        }
        return named_outputs, inference_stats | decoder_stats

    def reconstruction_cost(extra: Tree, images: jax.Array, logits: jax.Array) -> jax.Array:
        """Returns minus the log-likelihood of each image, [n] in nats."""
        if likelihood == "bernoulli":
            return cross_entropy(images, logits).sum((1, 2, 3))
        drawn = nn.sigmoid(logits)
        if features_from is None:
            error = jnp.square(images - drawn).mean((1, 2, 3))
        else:
            error = feature_error(extra["frozen"], images, drawn)
        return pixels * (error / (2 * sigma**2) + math.log(2 * math.pi * sigma**2) / 2)

    def feature_error(weights: Tree, images: jax.Array, drawn: jax.Array) -> jax.Array:
        """Returns the mean over blocks of the mean squared error of their outputs, [n]."""
        assert features_from is not None
        wanted, got = (features_from.activations(weights, x) for x in (images, drawn))
        errors = [
            jnp.square(x.astype(drawn.dtype) - y.astype(drawn.dtype)).reshape(len(x), -1).mean(1)
            for x, y in zip(wanted, got, strict=True)
        ]
        return jnp.stack(errors).mean(0)

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        cost = outputs["cost"].mean()
        loss = cost + beta * free_bits(outputs["divergence"], free_nats, free_group)
        metrics = {
            "reconstruction_loss": cost,
            "kl": outputs["divergence"].sum(-1).mean(),
            "active_dimensions": (outputs["mean"].var(0) > ACTIVE).sum().astype(jnp.float32),
        }
        metrics |= reconstruction_metrics(outputs["error"], outputs["images"])
        return loss, (extra, jax.lax.stop_gradient(metrics))

    def after_update(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
        del params, step
        return {**extra, "batch_stats": stats}

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return inference.features(params, extra["batch_stats"], images)

    def means(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        stats = extra["batch_stats"]
        posteriors = inference.features(params, stats, images, upto="posterior")
        return posteriors[:, :latent_dim]

    def decode(params: Tree, extra: Tree, codes: jax.Array) -> jax.Array:
        """Decodes codes [..., d] in inference mode to images [..., h, w, c]."""
        rows = codes.reshape(-1, latent_dim)
        logits = generator.features(params, extra["batch_stats"], rows, upto="decoder")
        return nn.sigmoid(logits).reshape(*codes.shape[:-1], *logits.shape[1:])

    def reconstructions(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws original and reconstruction of each image: [n, 2, h, w, c]."""
        del key
        drawn = decode(params, extra, means(params, extra, images))
        return jnp.stack([images, drawn], axis=1).clip(0, 1)

    def samples(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws images [rows, columns, h, w, c] from codes of the prior."""
        del images
        return decode(params, extra, jax.random.normal(key, (ROWS, COLUMNS, latent_dim)))

    def paths(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws straight lines between the codes of pairs of images: [rows, columns, h, w, c]."""
        del key
        rows = min(max(len(images) // 2, 1), ROWS)
        codes = means(params, extra, images)
        start, end = codes[:rows, None], codes[-rows:, None]
        weight = jnp.linspace(0, 1, COLUMNS)[None, :, None]
        return decode(params, extra, (1 - weight) * start + weight * end)

    pictures = (
        Picture(
            "reconstructions",
            "Reconstructions",
            RECONSTRUCTIONS,
            reconstructions,
            ("original", "reconstruction"),
        ),
        Picture("samples", "Generated images", SAMPLES, samples),
        Picture("interpolations", "Interpolations", PATHS, paths),
    )
    return Method(init, encode, objective, features, after_update, pictures=pictures)


def _check(
    latent_dim: int, likelihood: str, sigma: float, beta: float, free_nats: float, free_group: int
) -> None:
    """Raises ValueError for numbers out of their range."""
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {', '.join(LIKELIHOODS)}; got {likelihood!r}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be a finite number above 0, got {sigma}")
    if not 0 <= beta < math.inf or not 0 <= free_nats < math.inf:
        raise ValueError(
            f"beta and free_nats must be finite and at least 0, got {beta} and {free_nats}"
        )
    if latent_dim < 1 or free_group < 1 or latent_dim % free_group:
        raise ValueError(
            f"free_group must divide latent_dim into groups, got {free_group} for {latent_dim} "
            "dimensions"
        )
