"""Modules applied one after another, for example encoder and heads, with one parameter tree."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Tree = Any


class Chain:
    """Named modules applied one after another, as a pure function of their parameters.

    Images are given with their views, [b, k, h, w, 3]. The modules see them as rows [b * k, ...],
    with the view as the fastest index.

    Args:
      bn_group: number of rows of `views` views that share BatchNorm statistics; 0 means all rows. A
        forward of k views shares statistics among the same number of examples, that is, among k /
        views times as many rows.
      views: number of views that bn_group refers to.
      **modules: linen modules (x [n, ...], train) -> [n, ...] by name. Their attributes `bn_group`
        and `bn_views` are set, if they have them.
    """

    def __init__(self, bn_group: int, views: int, **modules: nn.Module):
        self._bn_group, self._views, self._modules = bn_group, views, modules

    def init(self, key: jax.Array, images: jax.Array) -> tuple[Tree, Tree]:
        """Initialises all modules from two or more examples [b, k, h, w, 3].

        Returns:
          (params, batch_stats), each {module name: tree}.
        """
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
        keys: jax.Array | None = None,
    ) -> tuple[dict[str, jax.Array], Tree]:
        """Forward in training mode.

        Args:
          params: {module name: parameters}.
          stats: {module name: batch_stats}.
          images: [b, k, h, w, 3].
          upto: name of the last module to run; None runs all.
          apart: True gives each view its own BatchNorm statistics, as if the views were forwarded
            one by one.
          keys: a random key for each example, [b], for modules whose field `dropout` is above 0.
            They receive a key for each row.

        Returns:
          ({module name: output [b, k, ...]}, new batch_stats of the modules that ran).

        Raises:
          ValueError: if normalisation groups do not hold whole examples.
        """
        b, k = images.shape[:2]
        norm = {"bn_group": self._group_rows(k), "bn_views": k if apart else 1}
        x = images.reshape(b * k, *images.shape[2:])
        row_keys = None if keys is None else _keys_of_views(keys, k)
        outputs, new = {}, {}
        for name in self._names_upto(upto):
            module = _with_fields(self._modules[name], norm)
            variables = {"params": params[name], "batch_stats": stats[name]}
            drawn = (row_keys,) if getattr(module, "dropout", 0) else ()
            x, updated = module.apply(variables, x, True, *drawn, mutable=["batch_stats"])
            outputs[name] = x.reshape(b, k, *x.shape[1:])
            new[name] = updated.get("batch_stats", {})
        return outputs, new

    def features(
        self, params: Tree, stats: Tree, images: jax.Array, *, upto: str = "encoder"
    ) -> jax.Array:
        """Runs the modules up to `upto` in inference mode; the result is float32.

        Arguments are those of `inference`.
        """
        return jnp.asarray(self.inference(params, stats, images, upto=upto), jnp.float32)

    def inference(
        self, params: Tree, stats: Tree, images: jax.Array, *, upto: str | None = None
    ) -> jax.Array:
        """Runs the modules up to `upto` in inference mode.

        Args:
          params: {module name: parameters}.
          stats: {module name: batch_stats}.
          images: [n, h, w, 3].
          upto: name of the last module to run; None runs all.

        Returns:
          Output of that module, [n, ...].
        """
        x: Any = images
        for name in self._names_upto(upto):
            variables = {"params": params[name], "batch_stats": stats[name]}
            x = self._modules[name].apply(variables, x, False)
        return x

    def _names_upto(self, last: str | None) -> list[str]:
        names = list(self._modules)
        return names if last is None else names[: names.index(last) + 1]

    def _group_rows(self, k: int) -> int:
        if self._bn_group * k % self._views:
            raise ValueError(
                f"bn_group {self._bn_group} must be a multiple of the {self._views} views"
            )
        return self._bn_group * k // self._views


def _keys_of_views(keys: jax.Array, k: int) -> jax.Array:
    """Returns independent keys [b * k], the view as the fastest index, from keys [b]."""
    views = jnp.arange(k, dtype=jnp.uint32)
    fold_in = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
    return fold_in(keys, views).reshape(-1)


def _with_fields(module: nn.Module, fields: dict[str, Any]) -> nn.Module:
    return module.clone(**{n: value for n, value in fields.items() if hasattr(module, n)})
