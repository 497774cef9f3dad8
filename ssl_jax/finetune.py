"""Fine-tune what a run has learnt, on all labels or on few, and classify the test images.

    python -m ssl_jax.finetune --pretrained=runs/digits --workdir=runs/tuned \
        --config.finetune.labels_per_class=10 --config.train.batch_size=50

The encoder and, by `--config.finetune.head_layer=1`, the first layers of the projection head go on
training under a new linear classifier (SimCLR v2, arXiv 2006.10029, section 2). Data and model
are those of the pre-trained run; `--config.FIELD=VALUE` changes what is not the model's. An export
or another project's weights (docs/import.md) bring no data: name it by `--config.data.source`. The
same command again resumes. Writes `WORKDIR/eval/finetune.json`.
"""

import pathlib
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, USAGE, Fault
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import workdir
from ssl_jax.training import command


def main() -> None:
    """The verb: see the module's docstring."""

    def config(stop: Stop) -> ConfigDict:
        pretrained = flags.FLAGS.pretrained
        if not workdir.is_run(_folder(pretrained)):  # JAX reads weights of other origin
            cli.start(stop)
        return make_config(pretrained, config_flags.get_override_values(flags.FLAGS["config"]))

    command.run_in_workdir(finetune, config)


def make_config(pretrained: str, overrides: dict[str, Any]) -> ConfigDict:
    """The config of fine-tuning the run in the folder `pretrained`.

    Raises:
      Fault: no run there, one that is fine-tuned itself, or a bad value.
    """
    path = _folder(pretrained)
    if not workdir.is_run(path) and workdir.exists(path) and "data.source" not in overrides:
        message = f"--pretrained={pretrained} brings no data: name them, e.g."
        raise Fault(f"{message} --config.data.source=folder --config.data.dir=IMAGES", USAGE)
    before = _before(path)
    if "finetune" in before:
        raise Fault(f"--pretrained={pretrained} is fine-tuned already", BAD_CONFIG)
    config = configuration.finetuning_config(before)
    config.update_from_flattened_dict(overrides)
    config.finetune.pretrained = str(_folder(pretrained))
    if found := configuration.problems(config):
        raise Fault("bad config:\n  " + "\n  ".join(found), BAD_CONFIG)
    return config


def _before(path: pathlib.Path) -> ConfigDict:
    """The config of the run at `path`, or one for weights of other origin."""
    if workdir.is_run(path) or not workdir.exists(path):
        return configuration.load(path)
    from ssl_jax.pretrained import backbone  # imports JAX: what the file holds decides the config

    found = backbone.load(path)
    return configuration.imported_config(found.weights.model, found.size, found.crop)


def overridable() -> ConfigDict:
    """The fields that have flags; model and method are as pre-trained."""
    config = configuration.finetuning_config(configuration.default_config())
    with config.unlocked():
        del config.model, config.method, config.finetune.pretrained
        # One view of every image, the whole batch at once, and no probe of features.
        del config.augment.views, config.augment.second, config.augment.local
        del config.train.microbatch, config.train.noise_scale, config.train.probe
        del config.eval.knn_k, config.eval.knn_temperature, config.eval.labels_per_class
        del config.eval.draws, config.eval.max_train, config.eval.baselines
        del config.eval.protocols, config.eval.few_shot_draws
        del config.eval.sgd_epochs, config.eval.sgd_lr, config.eval.sgd_batch_size
    return config


def _folder(path: str) -> pathlib.Path:
    return pathlib.Path(path).expanduser().resolve()


def finetune(config: ConfigDict, run: workdir.Workdir, stop: Stop) -> None:
    """Builds the parts, resumes, trains, evaluates, reports."""
    from ssl_jax import build
    from ssl_jax.evals import fine_tuned
    from ssl_jax.pretrained import classifier
    from ssl_jax.training import loop

    mesh = command.make_mesh(config)
    weights = classifier.pretrained(_folder(config.finetune.pretrained))
    parts = build.finetuning_parts(config, weights, mesh)

    def finish(state: Any, trained: bool) -> None:
        del trained  # evaluation takes little time, so it runs again
        fine_tuned.evaluate_classifier(config, parts, state, run.path)

    loop.fit(config, run, parts, finish, stop, verb="finetune")


if __name__ == "__main__":
    flags.DEFINE_string("pretrained", None, "Folder of the run to fine-tune.")
    flags.mark_flag_as_required("pretrained")
    command.define_flags()
    cli.define_overrides(overridable())
    cli.run(main)
