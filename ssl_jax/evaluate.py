"""Evaluate the newest checkpoint of a run: kNN and linear evaluation, beside two baselines.

    python -m ssl_jax.evaluate --workdir=runs/digits --eval.labels_per_class="(2, 10, 0)"

Writes `WORKDIR/eval/*.json`, each number with its protocol, and prints the table. The protocol is
the config's `eval` section; `--eval.FIELD=VALUE` changes a field for this evaluation.
"""

import pathlib

from absl import flags
from ml_collections import ConfigDict, config_flags

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CHECKPOINT, BAD_CONFIG, USAGE, Fault


def main() -> None:
    """The verb: see the module's docstring."""
    path = pathlib.Path(flags.FLAGS.workdir).expanduser().absolute()
    config = configuration.load(path)
    if "finetune" in config:
        raise Fault(f"{path} is fine-tuned: its accuracy is in eval/finetune.json", USAGE)
    config.eval.update(config_flags.get_override_values(flags.FLAGS["eval"]))
    if flags.FLAGS.data_dir:
        config.data.dir = flags.FLAGS.data_dir
    if found := configuration.problems(config):
        raise Fault("bad config:\n  " + "\n  ".join(found), BAD_CONFIG)
    evaluate(config, path)


def evaluate(config: ConfigDict, path: pathlib.Path) -> None:
    """Restores the newest checkpoint and evaluates it."""
    import jax

    from ssl_jax import assess, build, metadata, parallel
    from ssl_jax.checkpoint import Checkpoints

    mesh = parallel.make_mesh()
    parts = build.parts(config, mesh)
    with (
        jax.set_mesh(mesh),
        Checkpoints(path / "checkpoints", config_hash=metadata.config_hash(config)) as checkpoints,
    ):
        restored = checkpoints.restore_latest(parts.abstract_state, repair=False)
        if restored is None:
            raise Fault(f"no checkpoint under {path}: train first", BAD_CHECKPOINT)
        state, _, _ = restored
        assess.evaluate(config, parts, state, path)


if __name__ == "__main__":
    cli.define_workdir()
    cli.define_section("eval")
    flags.DEFINE_string("data_dir", "", "Where the data lies here, if not where it was trained.")
    cli.run(main)
