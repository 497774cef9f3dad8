"""DINO: self-distillation with no labels (Caron et al. 2021, arXiv 2104.14294)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses import dino, dino_center
from ssl_jax.methods import Batch, Method, Run, Tree, _attention
from ssl_jax.methods._momentum import cosine_momentum, distance, moving_average
from ssl_jax.methods._multicrop import forward, full_and_local
from ssl_jax.methods._prototypes import freeze_steps, frozen_until, init_prototypes, scores
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import DENSE_INITS, MLP
from ssl_jax.optim import turns_from


def make(
    encoder: nn.Module,
    run: Run,
    *,
    prototypes: int = 65536,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    warmup_temperature: float = 0.04,
    warmup_epochs: float = 0.0,
    center_momentum: float = 0.9,
    momentum: float = 0.996,
    freeze_epochs: float = 1.0,
    skip_frozen: bool = True,
    hidden_dim: int = 2048,
    bottleneck_dim: int = 256,
) -> Method:
    """DINO (arXiv 2104.14294, section 3.1): the student predicts the teacher's softmax.

    The teacher is a moving average of the student, with a momentum that rises to 1 along a cosine.
    It sees the full-size views; the student sees all views. Centring and a low teacher temperature
    prevent a collapse. The head has three layers with GELU and without BatchNorm, then a last layer
    with unit-length weights on unit-length embeddings. Features are the teacher's, as in the
    paper's evaluation.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two or more full-size views and any number of local crops.
      prototypes: number of outputs of the last layer, K in the paper.
      student_temperature: temperature of the student's softmax.
      teacher_temperature: temperature of the teacher's softmax after the warm-up.
      warmup_temperature: teacher temperature at the first step.
      warmup_epochs: epochs in which the teacher temperature changes linearly to its final value.
      center_momentum: momentum of the average that is subtracted from the teacher's outputs.
      momentum: momentum of the teacher at the first step.
      freeze_epochs: epochs at the start in which the last layer is frozen.
      skip_frozen: the optimizer skips the frozen last layer: no momentum, count or decay, as in the
        authors' `utils.cancel_gradients_last_layer`. False: it makes updates with gradients of 0.
      hidden_dim: width of the head's hidden layers.
      bottleneck_dim: width of the embeddings before the last layer.

    Raises:
      ValueError: if there are fewer than two full-size views.
    """
    full, _ = full_and_local(run)
    steps_per_epoch = run.num_examples / run.batch_size
    frozen_steps = freeze_steps(freeze_epochs, run)
    head = MLP(
        (hidden_dim, hidden_dim, bottleneck_dim),
        hidden_norm=False,
        activation=partial(nn.gelu, approximate=False),
        dense_init="normal_0.02",
        dtype=encoder.dtype,
    )
    networks = Chain(run.bn_group, full, encoder=encoder, head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        params, stats = networks.init(keys[0], batch["views"])
        params["prototypes"] = init_prototypes(
            keys[1], bottleneck_dim, prototypes, DENSE_INITS["torch"]
        )
        extra = {
            "batch_stats": {"online": stats, "target": stats},
            "target": params,
            "center": jnp.zeros(prototypes),
        }
        return params, extra

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        stats = extra["batch_stats"]
        student, online = forward(networks, params, stats["online"], batch)
        full_size = {"views": batch["views"]}
        teacher, target = forward(networks, extra["target"], stats["target"], full_size)
        outputs = {name: out["head"] for name, out in student.items()}
        outputs |= {"teacher": teacher["views"]["head"], "features": student["views"]["encoder"]}
        return outputs, {"online": online, "target": target}

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del key
        last = frozen_until(frozen_steps, step, params["prototypes"])
        local = outputs.get("local_views")
        teacher = jax.lax.stop_gradient(scores(outputs["teacher"], extra["target"]["prototypes"]))
        loss, metrics = dino(
            scores(outputs["views"], last),
            teacher,
            center=extra["center"],
            teacher_temperature=temperature(step),
            student_temperature=student_temperature,
            local=None if local is None else scores(local, last),
        )
        center = dino_center(extra["center"], teacher, momentum=center_momentum)
        return loss, (extra | {"center": center}, metrics | distance(extra["target"], params))

    def temperature(step: jax.Array) -> jax.Array:
        progress = jnp.clip(step / max(warmup_epochs * steps_per_epoch, 1), 0, 1)
        return warmup_temperature + (teacher_temperature - warmup_temperature) * progress

    def after_update(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
        m = cosine_momentum(momentum, step, run.total_steps)
        target = moving_average(extra["target"], params, m)
        return extra | {"batch_stats": stats, "target": target}

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        del params
        return networks.features(extra["target"], extra["batch_stats"]["target"], images)

    def modules(params: Tree, extra: Tree) -> tuple[Tree, Tree]:
        del params
        # A ViT has no batch statistics, and a checkpoint drops empty dicts.
        return extra["target"], extra.get("batch_stats", {}).get("target", {})

    pictures = _attention.pictures(encoder, lambda extra: extra["target"]["encoder"])
    layout = {"batch_stats": "replicated", "target": "parameters", "center": "replicated"}
    return Method(
        init, encode, objective, features, after_update, layout, modules=modules, pictures=pictures,
        turns={"prototypes": turns_from(frozen_steps)} if skip_frozen and frozen_steps else {},
    )  # fmt: skip
