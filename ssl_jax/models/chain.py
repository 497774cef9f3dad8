"""Modules in a row: encoder, projection head, prediction head, with one tree for all."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Tree = Any


class Chain:
    """Named modules, each fed by the one before it; a pure function of its parameters.

    Images come with their views, [b, k, h, w, 3], and pass merged into rows, view fastest.

    Args:
      bn_group: rows of `views` views that share BatchNorm statistics; 0 = all. A forward of k
        views shares them among as many examples, so among k / views times as many rows.
      views: what bn_group counts by.
      modules: by name, linen modules (x [n, ...], train) -> [n, ...]. Where they have attributes
        `bn_group` and `bn_views`, these are set.
    """

    def __init__(self, bn_group: int, views: int, **modules: nn.Module):
        self._bn_group, self._views, self._modules = bn_group, views, modules

    def init(self, key: jax.Array, images: jax.Array) -> tuple[Tree, Tree]:
        """(params, batch_stats), each {name: tree}, from two or more examples [b, k, h, w, 3]."""
        params, stats = {}, {}
        x = images[:, 0]
        keys = jax.random.split(key, len(self._modules))
        for module_key, (name, module) in zip(keys, self._modules.items(), strict=True):
            x, variables = module.init_with_output(module_key, x, True)
            params[name] = variables.get("params", {})
            stats[name] = variables.get("batch_stats", {})
        return params, stats

    def __call__(
        self,
        params: Tree,
        stats: Tree,
        images: jax.Array,
        *,
        upto: str | None = None,
        apart: bool = False,
    ) -> tuple[dict[str, jax.Array], Tree]:
        """Training forward of images [b, k, h, w, 3].

        Args:
          upto: the last module to run; None for all.
          apart: views do not share BatchNorm statistics, as if they were forwarded one by one.

        Returns:
          ({name: output [b, k, ...]}, the new batch_stats of the modules that ran).

        Raises:
          ValueError: normalisation groups that do not hold whole examples.
        """
        b, k = images.shape[:2]
        norm = {"bn_group": self._group(k), "bn_views": k if apart else 1}
        x = images.reshape(b * k, *images.shape[2:])
        outputs, new = {}, {}
        for name in self._upto(upto):
            module = _with(self._modules[name], norm)
            variables = {"params": params[name], "batch_stats": stats[name]}
            x, updated = module.apply(variables, x, True, mutable=["batch_stats"])
            outputs[name] = x.reshape(b, k, *x.shape[1:])
            new[name] = updated.get("batch_stats", {})
        return outputs, new

    def features(
        self, params: Tree, stats: Tree, images: jax.Array, *, upto: str = "encoder"
    ) -> jax.Array:
        """Inference: images [n, h, w, 3] to the output of `upto`, [n, ...] float32."""
        x: Any = images
        for name in self._upto(upto):
            variables = {"params": params[name], "batch_stats": stats[name]}
            x = self._modules[name].apply(variables, x, False)
        return jnp.asarray(x, jnp.float32)

    def _upto(self, last: str | None) -> list[str]:
        names = list(self._modules)
        return names if last is None else names[: names.index(last) + 1]

    def _group(self, k: int) -> int:
        if self._bn_group * k % self._views:
            raise ValueError(
                f"bn_group {self._bn_group}: rows of {self._views} views, so a multiple of that"
            )
        return self._bn_group * k // self._views


def _with(module: nn.Module, fields: dict[str, Any]) -> nn.Module:
    return module.clone(**{n: value for n, value in fields.items() if hasattr(module, n)})
