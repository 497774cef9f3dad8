"""Pre-train by self-supervision: the config names the method, the data and the recipe.

    python -m ssl_jax.train --config=configs/simclr.py:digits --workdir=runs/digits

The same command again resumes, on the same devices bit for bit. At the end the features are
evaluated and `WORKDIR/report.html` is written.
"""

from typing import Any

from ml_collections import ConfigDict

from ssl_jax import cli
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import workdir
from ssl_jax.training import command


def main() -> None:
    """The verb: see the module's docstring."""
    command.run_in_workdir(train, lambda stop: cli.config())


def train(config: ConfigDict, run: workdir.Workdir, stop: Stop) -> None:
    """Builds the parts, resumes, trains, evaluates, reports."""
    from ssl_jax import build
    from ssl_jax.evals import evaluation
    from ssl_jax.training import loop

    parts = build.parts(config, command.make_mesh(config))

    def finish(state: Any, trained: bool) -> None:
        if trained or not evaluation.reprint(config, run.path, int(state.step)):
            evaluation.evaluate_run(config, parts, state, run.path)

    loop.fit(config, run, parts, finish, stop, verb="train")


if __name__ == "__main__":
    cli.define_config()
    command.define_flags()
    cli.run(main)
