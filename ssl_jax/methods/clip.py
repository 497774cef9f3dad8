"""CLIP and SigLIP: contrastive learning of images and captions (arXiv 2103.00020, 2303.15343)."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses import paired_info_nce, siglip
from ssl_jax.losses.softmax import normalise
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP
from ssl_jax.models.text import TextTransformer

LOSSES = ("info_nce", "sigmoid")
LARGEST_SCALE = 100.0  # of "info_nce"; CLIP's own limit


def make(
    encoder: nn.Module,
    run: Run,
    *,
    loss: str = "info_nce",
    embed_dim: int = 512,
    text_width: int = 512,
    text_depth: int = 12,
    text_heads: int = 8,
    text_causal: bool = True,
    text_pool: str = "end",
    temperature: float = 0.07,
    max_scale: float = 100.0,
    bias: float = -10.0,
) -> Method:
    """CLIP (arXiv 2103.00020, section 2.3) and SigLIP (arXiv 2303.15343, section 3).

    An image encoder and a text transformer embed the two parts of each pair in one space, each by a
    linear map without bias. The loss draws partners together and pushes all other pairs of the
    batch apart. The scale of the cosines, 1 / temperature, is learned as its logarithm.

    CLIP limits the learned scale after each update. Here the loss sees min(scale, max_scale), and
    at the limit the gradient passes only if it lowers the scale. Momentum, such as Adam's,
    may carry the number past the limit for about ten updates. The loss does not see the excess.

    Features are the output of the image encoder, before the linear map. The towers "image" and
    "text" are the embeddings.

    Args:
      encoder: linen module, (images [n, h, w, c], train) -> [n, f], with an attribute `dtype`.
      run: one view, and "tokens".
      loss: "info_nce" (CLIP: softmax in both directions) or "sigmoid" (SigLIP: one decision per
        pair).
      embed_dim: width of the common space.
      text_width: features per token of the text transformer.
      text_depth: blocks of the text transformer.
      text_heads: attention heads of each block.
      text_causal: a token sees only itself and earlier tokens (CLIP); False: all tokens (SigLIP).
      text_pool: token that becomes the embedding: "end" of the caption, or "last" of the row.
      temperature: temperature at the start; CLIP: 0.07, SigLIP: 0.1.
      max_scale: largest 1 / temperature; CLIP: 100. "info_nce" needs a limit in (0, 100], for
        its exponentials share one shift and must fit in float32: the loss is wrong if an embedding
        has no negative with a cosine above 1 - 142 / scale, which is -0.42 at 100. "sigmoid" takes
        any limit; 0: no limit.
      bias: bias of the logits at the start, which is then learned; only for "sigmoid".

    Raises:
      ValueError: if the loss or the pooling is unknown, the run does not have one view and tokens,
        max_scale is outside its range, or the temperature is not above 0 and at least
        1 / max_scale.
    """
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; choose one of: {', '.join(LOSSES)}")
    check_views(run, 1)
    if "tokens" not in run.symbols:
        message = "this method takes images with captions: set data.source to pairs or, to write "
        raise ValueError(f"{message}captions from class names, to captions:SOURCE")
    if loss == "info_nce" and not 0 < max_scale <= LARGEST_SCALE:
        raise ValueError(
            f"max_scale must be in (0, {LARGEST_SCALE:g}] for loss='info_nce', got {max_scale}: at "
            "larger scales, exponentials leave the range of float32 and the loss is wrong"
        )
    if not temperature > 0 or (max_scale and not temperature * max_scale >= 1):
        raise ValueError(
            f"temperature must be above 0 and at least 1 / max_scale, got {temperature} with "
            f"max_scale {max_scale}"
        )
    head = MLP((embed_dim,), last_bias=False, dtype=encoder.dtype)
    networks = Chain(run.bn_group, 1, encoder=encoder, image_head=head)
    text_tower = TextTransformer(
        vocabulary=run.symbols["tokens"],
        width=text_width,
        depth=text_depth,
        heads=text_heads,
        output_dim=embed_dim,
        causal=text_causal,
        pool=text_pool,
        dtype=encoder.dtype,
    )
    limit = math.log(max_scale) if max_scale else math.inf
    with_bias = loss == "sigmoid"

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        params, stats = networks.init(keys[0], batch["views"])
        params["text"] = text_tower.init(keys[1], batch["tokens"])["params"]
        start = {"log_scale": -math.log(temperature)} | ({"bias": bias} if with_bias else {})
        params["logits"] = {name: jnp.asarray(x, jnp.float32) for name, x in start.items()}
        return params, {"batch_stats": stats}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        outputs, stats = networks(params, extra["batch_stats"], batch["views"])
        text = text_tower.apply({"params": params["text"]}, batch["tokens"])
        image = outputs["image_head"][:, 0]
        return {"image": image, "text": text, "features": outputs["encoder"]}, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del key, step
        logits = params["logits"]
        now = jnp.exp(-at_most(logits["log_scale"], limit))
        compare = partial(siglip, bias=logits["bias"]) if with_bias else paired_info_nce
        value, metrics = compare(outputs["image"], outputs["text"], temperature=now)
        learned = {"temperature": now} | ({"bias": logits["bias"]} if with_bias else {})
        return value, (extra, metrics | jax.lax.stop_gradient(learned))

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images)

    def embed_image(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return normalise(
            jnp.asarray(networks.inference(params, extra["batch_stats"], images), jnp.float32)
        )

    def embed_text(params: Tree, extra: Tree, tokens: jax.Array) -> jax.Array:
        del extra
        embeddings = text_tower.apply({"params": params["text"]}, tokens)
        return normalise(jnp.asarray(embeddings, jnp.float32))

    return Method(
        init,
        encode,
        objective,
        features,
        evals=("knn", "linear", "retrieval", "zero_shot"),
        towers={"image": embed_image, "text": embed_text},
    )


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def at_most(x: jax.Array, limit: float) -> jax.Array:
    """Returns min(x, limit). At the limit, only a gradient that lowers x passes."""
    return jnp.minimum(x, limit)


def _at_most_forward(x: jax.Array, limit: float) -> tuple[jax.Array, jax.Array]:
    return at_most(x, limit), x


def _at_most_backward(limit: float, x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where((x < limit) | (gradient > 0), gradient, 0),)


at_most.defvjp(_at_most_forward, _at_most_backward)
