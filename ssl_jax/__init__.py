"""Self-supervised pre-training in JAX. Start with `python -m ssl_jax --help`."""

from typing import Any

__version__ = "0.1.0"


def load_backbone(path: Any, **options: Any) -> Any:
    """Loads the encoder at `path`; the result maps images to features.

    See `ssl_jax.pretrained.backbone.load` for the arguments and errors.
    """
    # Imported here because the verbs report mistakes before they import JAX.
    from ssl_jax.pretrained import backbone

    return backbone.load(path, **options)
