"""Runs `ssl_jax.train` with the smallest encoder and without pictures, for a study's cells."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tiny

from ssl_jax import build, cli, models, train
from ssl_jax.report import page
from ssl_jax.training import loop

if __name__ == "__main__":
    models.get = lambda name, *, dtype, **others: tiny.Encoder(dtype=dtype)
    build.draw_views = lambda *args: None
    page.write = lambda path: "left out"
    cli.define_config()
    loop.define_flags()
    cli.run(train.main)
