"""Networks that `methods.denoising` trains: a stack, layer by layer, or a deep encoder at once."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses import reconstruction
from ssl_jax.methods import Batch, Run, Tree
from ssl_jax.methods._corruption import corrupt
from ssl_jax.models import sdae
from ssl_jax.models.chain import Chain
from ssl_jax.models.decoder import Decoder
from ssl_jax.optim import Turns


class Criterion(NamedTuple):
    """The noise, and the error of a reconstruction."""

    noise: str
    level: float
    loss: str
    corrupted_weight: float
    clean_weight: float

    def corrupt(self, keys: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns corrupted rows [n, ...] and where they are corrupted, by one key per row."""
        return corrupt(keys, x, self.noise, self.level)

    def cost(self, x: jax.Array, logits: jax.Array, corrupted: jax.Array) -> jax.Array:
        """Returns the weighted error of each row, [n], summed over all components."""
        if self.loss == "cross_entropy":
            error = reconstruction.cross_entropy(x, logits)
        else:
            error = jnp.square(x - nn.sigmoid(logits))
        return reconstruction.emphasised(error, corrupted, self.corrupted_weight, self.clean_weight)


class Denoised(NamedTuple):
    """A forward of a batch of n images in training mode."""

    cost: jax.Array  # [n], the error to minimise
    images: jax.Array  # reconstructions [n, h, w, c] in [0, 1]
    features: jax.Array  # [n, f]


class Stack:
    """A stacked autoencoder: each layer learns in turn to denoise the clean code of those below.

    Args:
      encoder: the layers.
      criterion: noise and error of every layer.
      run: the run, whose steps are divided equally among the stages.
      tied: decode with the transposed weights of the encoder.
      end_to_end: add a last stage in which all layers learn together to denoise images.

    Raises:
      ValueError: if there are fewer steps than stages.
    """

    def __init__(
        self, encoder: sdae.SDAE, criterion: Criterion, run: Run, *, tied: bool, end_to_end: bool
    ):
        self._encoder, self._criterion, self._tied = encoder, criterion, tied
        self._depth = len(encoder.widths)
        layers = [(i, i + 1) for i in range(self._depth)]
        self._stages = layers + ([(0, self._depth)] if end_to_end and self._depth > 1 else [])
        self._total = run.total_steps
        if self._total < len(self._stages):
            raise ValueError(
                f"{len(self._stages)} stages of training need at least one step each, but the run "
                f"has {self._total}"
            )

    @property
    def turns(self) -> dict[str, Turns]:
        """Ranges of steps in which each layer's parameters learn, by their path."""
        count = len(self._stages)
        ends = [-(-k * self._total // count) for k in range(count + 1)]
        return {
            f"{module}/layer{i}": tuple(
                (ends[k], ends[k + 1])
                for k, (first, end) in enumerate(self._stages)
                if first <= i < end
            )
            for i in range(self._depth)
            for module in ("encoder", "decoder")
        }

    def stage(self, step: jax.Array) -> jax.Array:
        """Returns the stage of a step, counted from 0, as int32."""
        stage = step * len(self._stages) // self._total
        return jnp.minimum(stage, len(self._stages) - 1).astype(jnp.int32)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key, 1 + self._depth)
        images = batch["views"][:, 0]
        encoder = self._encoder.init(keys[0], images, True)["params"]
        decoder = {}
        for (name, layer), layer_key in zip(encoder.items(), keys[1:], strict=True):
            kernel = layer["kernel"]
            decoder[name] = {"bias": jnp.zeros(kernel.shape[-2], kernel.dtype)}
            if not self._tied:
                decoder[name]["kernel"] = sdae.kernel_init(layer_key, kernel.shape, kernel.dtype)
        return {"encoder": encoder, "decoder": decoder}, {"stage": jnp.zeros((), jnp.int32)}

    def train(
        self, params: Tree, extra: Tree, images: jax.Array, keys: jax.Array
    ) -> tuple[Denoised, Tree]:
        """Denoises the images or codes that the present stage learns from."""
        branches = [
            partial(self._denoise, params, images, keys, first, end) for first, end in self._stages
        ]
        return jax.lax.switch(extra["stage"], branches), {}

    def _denoise(
        self, params: Tree, images: jax.Array, keys: jax.Array, first: int, end: int
    ) -> Denoised:
        """Denoises the input of layer `first` by the layers below `end`."""
        x = sdae.layer_input(images, self._encoder.kind)
        shapes = [x.shape]
        for i in range(first):
            x = self._encode(params, i, x)
            shapes.append(x.shape)
        x = jax.lax.stop_gradient(x)  # lower layers do not learn
        code, corrupted = self._criterion.corrupt(keys, x)
        for i in range(first, end):
            code = self._encode(params, i, code)
            shapes.append(code.shape)
        logits = self._decode(params, code, first, end, shapes)
        cost = self._criterion.cost(x, logits, corrupted)
        # Layers below and above only show what this stage has learned.
        decoded, code = jax.lax.stop_gradient((logits, code))
        if first:
            decoded = self._decode(params, nn.sigmoid(decoded), 0, first, shapes)
        for i in range(end, self._depth):
            code = self._encode(params, i, code)
        pixels = nn.sigmoid(decoded).reshape(images.shape)
        return Denoised(cost, pixels, code.reshape(len(code), -1))

    def _encode(self, params: Tree, i: int, x: jax.Array) -> jax.Array:
        return sdae.encode(params["encoder"][f"layer{i}"], x, self._encoder.dtype)

    def _decode(
        self, params: Tree, code: jax.Array, first: int, end: int, shapes: list[tuple[int, ...]]
    ) -> jax.Array:
        """Decodes the code of layer `end - 1` to the logits of the input of layer `first`."""
        logits = code
        for i in reversed(range(first, end)):
            code = logits if i == end - 1 else nn.sigmoid(logits)
            kernel = {"kernel": params["encoder"][f"layer{i}"]["kernel"]}
            weights = kernel | params["decoder"][f"layer{i}"]
            logits = sdae.decode(weights, code, shapes[i], self._encoder.dtype)
        return logits

    def reconstruct(self, params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        """Returns the reconstructions [n, h, w, c] of corrupted images by all layers."""
        del extra
        x = sdae.layer_input(images, self._encoder.kind)
        shapes = [x.shape]
        for i in range(self._depth):
            x = self._encode(params, i, x)
            shapes.append(x.shape)
        logits = self._decode(params, x, 0, self._depth, shapes)
        return nn.sigmoid(logits).reshape(images.shape)

    def features(self, params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        del extra
        code = self._encoder.apply({"params": params["encoder"]}, images, False)
        return jnp.asarray(code, jnp.float32)


class Deep:
    """Any encoder, with the convolutional decoder behind its features; both learn at once.

    Args:
      encoder: linen module, (images [n, h, w, c], train) -> [n, f], with an attribute `dtype`.
      criterion: noise and error.
      run: the run, of one view.
      decoder_width: channels of the decoder's last layers.
    """

    def __init__(self, encoder: nn.Module, criterion: Criterion, run: Run, *, decoder_width: int):
        self._criterion = criterion
        self.turns: dict[str, Turns] = {}  # all parameters always learn
        _, size, _, channels = run.seen["views"].shape
        decoder = Decoder(size, decoder_width, channels, logits=True, dtype=encoder.dtype)
        self._networks = Chain(run.bn_group, 1, encoder=encoder, decoder=decoder)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        params, stats = self._networks.init(key, batch["views"])
        return params, {"batch_stats": stats}

    def train(
        self, params: Tree, extra: Tree, images: jax.Array, keys: jax.Array
    ) -> tuple[Denoised, Tree]:
        """Denoises corrupted images."""
        noisy, corrupted = self._criterion.corrupt(keys, images)
        outputs, stats = self._networks(params, extra["batch_stats"], noisy[:, None])
        logits = outputs["decoder"][:, 0]
        cost = self._criterion.cost(images, logits, corrupted)
        return Denoised(cost, nn.sigmoid(logits), outputs["encoder"][:, 0]), stats

    def reconstruct(self, params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        """Returns the reconstructions [n, h, w, c] of corrupted images in inference mode."""
        stats = extra["batch_stats"]
        return nn.sigmoid(self._networks.features(params, stats, images, upto="decoder"))

    def features(self, params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return self._networks.features(params, extra["batch_stats"], images)
