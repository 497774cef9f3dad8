"""Self-supervised pre-training in JAX. Start with `python -m ssl_jax --help`."""

from typing import Any

__version__ = "0.1.0"


def load_backbone(path: Any, **options: Any) -> Any:
    """The encoder at `path`, callable on images; see `ssl_jax.pretrained.backbone.load`."""
    # Imported here: the verbs report a mistake before they import JAX.
    from ssl_jax.pretrained import backbone

    return backbone.load(path, **options)
