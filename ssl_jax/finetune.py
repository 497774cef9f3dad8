"""Fine-tune a pre-trained encoder on all labels or a few, and classify the test images.

    ssl-jax finetune --pretrained=runs/digits --workdir=runs/tuned \\
        --config.finetune.labels_per_class=10 --config.train.batch_size=50

A new linear classifier is trained together with the encoder and, with
`--config.finetune.head_layer=1`, the first layers of the projection head (SimCLR v2,
arXiv 2006.10029, section 2). Data and model are those of the pre-trained run;
`--config.FIELD=VALUE` changes other fields than the model's. An export or another project's weights
(docs/import.md) have no data, so pass `--config.data.source`. Run the same command again to resume.
Writes `WORKDIR/eval/finetune.json`.
"""

import pathlib
from functools import partial
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.config import same_data
from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, USAGE, Fault, count
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import workdir
from ssl_jax.training import command


def main() -> None:
    """Runs the command; see the module's docstring."""

    def config(stop: Stop) -> tuple[ConfigDict, str]:
        pretrained = flags.FLAGS.pretrained
        if not workdir.is_run(_folder(pretrained)):  # reading other weights imports JAX
            cli.start(stop)
        overrides = config_flags.get_override_values(flags.FLAGS["config"])
        config = make_config(pretrained, overrides)
        cli.start(stop)  # a process that cannot open its data then ends all others
        return fit_batch(config, overrides)

    command.run_in_workdir(partial(finetune, table=flags.FLAGS.show_parameters), config)


def make_config(pretrained: str, overrides: dict[str, Any]) -> ConfigDict:
    """Makes the config that fine-tunes the weights at `pretrained`.

    Args:
      pretrained: workdir of a run, folder of an export, or weights of another project.
      overrides: values by name of the field, such as "optim.lr".

    Raises:
      Fault: the path is missing, the run is fine-tuned already, a value is invalid, or examples
        are held out that the run was trained on.
    """
    path = _folder(pretrained)
    if not workdir.exists(path):
        message = f"no run at {path}, and no weights: --pretrained={pretrained} does not exist"
        raise Fault(f"{message}. Pass a workdir, an export or other weights", MISSING_INPUT)
    if not workdir.is_run(path) and workdir.exists(path) and "data.source" not in overrides:
        message = f"--pretrained={pretrained} brings no data: pass, for example,"
        raise Fault(f"{message} --config.data.source=folder --config.data.dir=IMAGES", USAGE)
    before = _pretraining_config(path)
    if "finetune" in before:
        raise Fault(f"--pretrained={pretrained} is fine-tuned already", BAD_CONFIG)
    config = configuration.finetuning_config(before)
    others = {k: v for k, v in overrides.items() if not k.startswith("data.")}
    config.update_from_flattened_dict(others)
    changes = {k.removeprefix("data."): v for k, v in overrides.items() if k.startswith("data.")}
    config.data = before.data.copy_and_resolve_references()
    same_data.update(config.data, changes)
    same_data.check_encoder(before.data, config.data, "the pre-trained encoder", "--config.data")
    if workdir.is_run(path):
        same_data.check_held_out(before.data, config.data)
    channels, expected = (data.get("channels") for data in (config.data, before.data))
    if expected and channels != expected:
        message = f"data.channels={channels}: the encoder at {pretrained} takes images"
        raise Fault(f"{message} of {count(expected, 'channel')}", BAD_CONFIG)
    config.finetune.pretrained = str(_folder(pretrained))
    if problems := configuration.problems(config):
        raise Fault("bad config:\n  " + "\n  ".join(problems), BAD_CONFIG)
    return config


def fit_batch(config: ConfigDict, overrides: dict[str, Any]) -> tuple[ConfigDict, str]:
    """Sets AUTO fields, and lowers the default batch if there are fewer labelled examples.

    The BatchNorm groups of pre-training may not divide the batch. `finetune` has no flag for them,
    so the whole batch then is one group.

    Args:
      config: config of `make_config`.
      overrides: fields that the command line sets.

    Returns:
      (config, a line that names the changed fields; "" if none changed).

    Raises:
      Fault: the data cannot be opened, have no labels, or a class has too few.
    """
    from ssl_jax import build, components

    source = build.labelled(config, components.open_source(config, config.data.split))
    config, line = components.adapt_to_data(config, source)
    lines = [line] if line else []
    if "train.batch_size" not in overrides and config.train.batch_size > source.size:
        config.train.batch_size = configuration.power_of_two(source.size)
        lines.append(f"{source.size} labelled examples: train.batch_size={config.train.batch_size}")
    group = config.model.get("bn_group", 0)
    if group and config.train.batch_size % group:
        config.model.bn_group = 0
        lines.append(f"model.bn_group=0, because {group} does not divide train.batch_size")
    return config, "; ".join(lines)


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
        config.data = configuration.every_data_field()
        del config.model, config.method, config.finetune.pretrained
        # Fine-tuning uses one view per image, whole batches, no probe and no early stopping.
        del config.augment.views, config.augment.second, config.augment.local
        del config.train.microbatch, config.train.noise_scale, config.train.probe
        del config.train.stop_on, config.train.stop_every, config.train.stop_patience
        del config.eval.knn_k, config.eval.knn_temperature, config.eval.labels_per_class
        del config.eval.draws, config.eval.max_train, config.eval.baselines
        del config.eval.protocols, config.eval.few_shot_draws
        del config.eval.sgd_epochs, config.eval.sgd_lr, config.eval.sgd_batch_size
    return config


def _folder(path: str) -> pathlib.Path:
    return pathlib.Path(path).expanduser().resolve()


def finetune(config: ConfigDict, run: workdir.Workdir, stop: Stop, *, table: bool = False) -> None:
    """Builds the parts, resumes or starts the run, trains, evaluates and reports.

    Args:
      config: config of the run.
      run: workdir of the run.
      stop: reports signals.
      table: print a table of all parameters first.
    """
    from ssl_jax import build
    from ssl_jax.evals import early, fine_tuned
    from ssl_jax.pretrained import classifier
    from ssl_jax.training import loop

    mesh = command.make_mesh(config)
    weights = classifier.pretrained_weights(_folder(config.finetune.pretrained))
    parts = build.finetuning_parts(config, weights, mesh)
    command.print_start(config, parts, table=table)
    split = f"data.eval_split={config.data.eval_split}"
    problems = early.unlabelled(parts.test, split) if parts.test else []
    command.report(run, problems, build.warnings(config, parts))

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
