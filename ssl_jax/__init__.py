"""Self-supervised pre-training in JAX. `python -m ssl_jax.train --help` is the front door."""

from typing import Any


def load_backbone(path: Any, **options: Any) -> Any:
    """The encoder at `path`, callable on images; see `ssl_jax.pretrained.backbone.load`."""
    # Imported here: the verbs report a mistake before they import JAX.
    from ssl_jax.pretrained import backbone

    return backbone.load(path, **options)
