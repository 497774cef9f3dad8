"""Draw the random views that a config makes of real images, to check them before a run.

python -m ssl_jax.preview --config=configs/simclr.py:digits --out=views.png
"""

import pathlib

from absl import flags

from ssl_jax import cli


def main() -> None:
    """Runs the command; see the module's docstring."""
    config = cli.config()
    from ssl_jax import components
    from ssl_jax.training import preview

    path = pathlib.Path(flags.FLAGS.out).absolute()
    source = components.open_source(config, config.data.split)
    preview.draw_views(config, source, path, count=flags.FLAGS.images)
    print(path)


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_string("out", "views.png", "PNG file to write.")
    flags.DEFINE_integer("images", 8, "Number of images to draw.", lower_bound=1)
    cli.run(main)
