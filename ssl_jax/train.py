"""Pre-train by self-supervision: the config names the method, the data and the recipe.

    python -m ssl_jax.train --config=configs/simclr.py:digits --workdir=runs/digits

Run the same command again to resume. On the same devices, a resumed run is equal to the bit. At the
end, the run evaluates its features and writes `WORKDIR/report.html`.
"""

from typing import Any

from ml_collections import ConfigDict

from ssl_jax import cli
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import workdir
from ssl_jax.training import command


def main() -> None:
    """Runs the command; see the module's docstring."""
    command.run_in_workdir(train, lambda stop: cli.config())


def train(config: ConfigDict, run: workdir.Workdir, stop: Stop) -> None:
    """Builds the parts, resumes or starts the run, trains, evaluates and reports."""
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
