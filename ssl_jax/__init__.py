"""Self-supervised pre-training in JAX. `python -m ssl_jax.train --help` is the front door."""

from typing import Any


def load_backbone(path: Any, **options: Any) -> Any:
    """The encoder at `path`, callable on images; see `ssl_jax.backbone.load`."""
    from ssl_jax import backbone  # not above: the verbs answer mistakes before they import JAX

    return backbone.load(path, **options)
