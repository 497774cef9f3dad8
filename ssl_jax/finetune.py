"""Fine-tune a pre-trained encoder on all labels or a few, and classify the test images.

    python -m ssl_jax.finetune --pretrained=runs/digits --workdir=runs/tuned \
        --config.finetune.labels_per_class=10 --config.train.batch_size=50

A new linear classifier is trained together with the encoder and, with
`--config.finetune.head_layer=1`, the first layers of the projection head (SimCLR v2,
arXiv 2006.10029, section 2). Data and model are those of the pre-trained run;
`--config.FIELD=VALUE` changes other fields than the model's. An export or another project's weights
(docs/import.md) have no data, so pass `--config.data.source`. Run the same command again to resume.
Writes `WORKDIR/eval/finetune.json`.
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
    """Runs the command; see the module's docstring."""

    def config(stop: Stop) -> ConfigDict:
        pretrained = flags.FLAGS.pretrained
        if not workdir.is_run(_folder(pretrained)):  # reading other weights imports JAX
            cli.start(stop)
        return make_config(pretrained, config_flags.get_override_values(flags.FLAGS["config"]))

    command.run_in_workdir(finetune, config)


def make_config(pretrained: str, overrides: dict[str, Any]) -> ConfigDict:
    """Makes the config that fine-tunes the weights at `pretrained`.

    Args:
      pretrained: workdir of a run, folder of an export, or weights of another project.
      overrides: values by name of the field, such as "optim.lr".

    Raises:
      Fault: the path is missing, the run is fine-tuned already, or a value is invalid.
    """
    path = _folder(pretrained)
    if not workdir.is_run(path) and workdir.exists(path) and "data.source" not in overrides:
        message = f"--pretrained={pretrained} brings no data: pass, for example,"
        raise Fault(f"{message} --config.data.source=folder --config.data.dir=IMAGES", USAGE)
    before = _pretraining_config(path)
    if "finetune" in before:
        raise Fault(f"--pretrained={pretrained} is fine-tuned already", BAD_CONFIG)
    config = configuration.finetuning_config(before)
    config.update_from_flattened_dict(overrides)
    if config.data.channels != before.data.channels:
        message = f"data.channels={config.data.channels}: the encoder at {pretrained} takes images"
        raise Fault(f"{message} of {before.data.channels} channels", BAD_CONFIG)
    config.finetune.pretrained = str(_folder(pretrained))
    if problems := configuration.problems(config):
        raise Fault("bad config:\n  " + "\n  ".join(problems), BAD_CONFIG)
    return config


def _pretraining_config(path: pathlib.Path) -> ConfigDict:
    """Returns the config of the run at `path`, or makes one for imported weights."""
    if workdir.is_run(path) or not workdir.exists(path):
        return configuration.load(path)
    from ssl_jax.pretrained import backbone  # imports JAX: the weights determine the config

    net = backbone.load(path)
    return configuration.imported_config(net.weights.model, net.size, net.crop, net.channels)


def overridable() -> ConfigDict:
    """Returns the fields that have flags; model and method come from the pre-trained run."""
    config = configuration.finetuning_config(configuration.default_config())
    with config.unlocked():
        del config.model, config.method, config.finetune.pretrained
        # Fine-tuning uses one view per image, whole batches and no probe.
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
    """Builds the parts, resumes or starts the run, trains, evaluates and reports."""
    from ssl_jax import build
    from ssl_jax.evals import fine_tuned
    from ssl_jax.pretrained import classifier
    from ssl_jax.training import loop

    mesh = command.make_mesh(config)
    weights = classifier.pretrained_weights(_folder(config.finetune.pretrained))
    parts = build.finetuning_parts(config, weights, mesh)

    def finish(state: Any, trained: bool) -> None:
        del trained  # evaluation takes little time, so it runs again
        fine_tuned.evaluate_classifier(config, parts, state, run.path)

    loop.fit(config, run, parts, finish, stop, verb="finetune")


if __name__ == "__main__":
    flags.DEFINE_string(
        "pretrained", None, "Workdir of a run, folder of an export, or weights of another project."
    )
    flags.mark_flag_as_required("pretrained")
    command.define_flags()
    cli.define_overrides(overridable())
    cli.run(main)
