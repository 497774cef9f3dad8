"""Self-supervised pre-training in JAX. `python -m ssl_jax.train --help` is the front door."""
