"""Draw the random views that a config makes of real images, or check that all images are readable.

ssl-jax preview --config=simclr:digits --out=views.png
ssl-jax preview --config=simclr:digits --check

Writes a PNG, PDF or SVG file, by the suffix of --out.
"""

import pathlib

from absl import flags

from ssl_jax import cli
from ssl_jax.errors import USAGE, Fault


def main() -> None:
    """Runs the command; see the module's docstring."""
    config = cli.config()
    from ssl_jax.report.figures import style

    path = pathlib.Path(flags.FLAGS.out).expanduser().absolute()
    if path.suffix.lower() not in style.FORMATS:
        formats = " or ".join(style.FORMATS)
        raise Fault(f"--out={path.name}: unknown format; end the name in {formats}", USAGE)
    from ssl_jax import components
    from ssl_jax.training import preview

    if flags.FLAGS.check:
        preview.check_examples(config)
        return
    source = components.open_source(config, config.data.split)
    preview.draw_views(config, source, path, count=flags.FLAGS.images)
    print(path)


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_string("out", "views.png", "File to write: .png, .pdf or .svg.")
    flags.DEFINE_integer("images", 8, "Number of images to draw.", lower_bound=1)
    flags.DEFINE_bool(
        "check", False, "Decode all training and evaluation examples, and list unreadable ones."
    )
    cli.run(main)
