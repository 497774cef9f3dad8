"""Random views of images: one specification, one sampler, two executors that give equal pixels.

`views` is the specification and `recipes` the published ones, both plain data. `host` (TensorFlow)
draws every random decision and crops; either it or `device` (JAX) then does the colour work.
"""
