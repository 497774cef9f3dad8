"""Pre-train by self-supervision: the config names the method, the data and the recipe.

    ssl-jax train --config=simclr:digits --workdir=runs/digits

Run the same command again to resume. On the same devices, a resumed run is equal to the bit. At the
end, the run evaluates its features and writes `WORKDIR/report.html`.
"""

from functools import partial
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import workdir
from ssl_jax.training import command


def main() -> None:
    """Runs the command; see the module's docstring."""

    def config(stop: Stop) -> tuple[ConfigDict, str]:
        given = cli.config()
        from ssl_jax import components  # imports JAX: mistakes in the config are reported before

        if configuration.auto_fields(given):
            cli.start(stop)  # a process that cannot open its data then ends all others
        return components.adapt_to_data(given)

    command.run_in_workdir(partial(train, table=flags.FLAGS.show_parameters), config)


def train(config: ConfigDict, run: workdir.Workdir, stop: Stop, *, table: bool = False) -> None:
    """Builds the parts, resumes or starts the run, trains, evaluates and reports.

    Args:
      config: config of the run.
      run: workdir of the run.
      stop: reports signals.
      table: print a table of all parameters first.
    """
    from ssl_jax import build
    from ssl_jax.evals import early, evaluation, online_knn
    from ssl_jax.training import loop

    parts = build.parts(config, command.make_mesh(config))
    command.print_start(config, parts, table=table)
    problems = [*build.new_run_problems(config, parts.source), *early.problems(config, parts)]
    command.report(run, problems, [*build.warnings(config, parts), *early.warnings(config, parts)])

    def finish(state: Any, trained: bool) -> None:
        if trained or not evaluation.reprint(config, run.path, int(state.step)):
            evaluation.evaluate_run(config, parts, state, run.path)

    knn = online_knn.scorer(config, parts) if config.train.stop_on == "knn" else None
    loop.fit(config, run, parts, finish, stop, verb="train", knn=knn)


if __name__ == "__main__":
    cli.define_config()
    command.define_flags()
    cli.run(main)
