"""Writes figures and report.html of a run, from the files in its workdir alone.

python -m ssl_jax.report --workdir=runs/NAME
"""

from absl import flags

from ssl_jax import cli
from ssl_jax.report import page


def main() -> None:
    """The verb: see the module's docstring."""
    print(page.write(flags.FLAGS.workdir))


if __name__ == "__main__":
    cli.define_workdir()
    cli.run(main)
