"""Runs `ssl_jax.train` with the smallest encoder and without pictures, for a study's cells."""

import pathlib
import sys

from ssl_jax.training import command, preview

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tiny

from ssl_jax import cli, models, train
from ssl_jax.report import page

if __name__ == "__main__":
    models.get = lambda name, *, dtype, **others: tiny.Encoder(dtype=dtype)
    preview.draw_views = lambda *args: None
    page.write = lambda path: "left out"
    cli.define_config()
    command.define_flags()
    cli.run(train.main)
