"""The image modality: random views from one specification, one sampler and two executors.

`views` is the specification and `recipes` holds the published ones; both are plain data. `host`
(TensorFlow) draws every random decision and crops. Then either `host` or `device` (JAX) does the
colour operations; both give equal pixels. `decode` turns files into pixels.
"""

from ssl_jax.inputs.image.make import default_fields, make_input, problems

__all__ = ["default_fields", "make_input", "problems"]
