"""Evaluate the newest checkpoint of a run, or a pre-trained encoder, beside two baselines.

    ssl-jax evaluate --workdir=runs/digits --eval.labels_per_class="(2, 10, 0)"
    ssl-jax evaluate --workdir=runs/digits --eval.protocols="('few_shot', 'layers')"
    ssl-jax evaluate --workdir=runs/digits --data.source=tfds:cifar10 --data.dir=DATA_DIR
    ssl-jax evaluate --workdir=runs/weights --pretrained=runs/tuned --data.source=digits

Writes `WORKDIR/eval/*.json`, each number with its protocol, and prints the tables. The protocols
are in the config's `eval` section; `--eval.FIELD=VALUE` changes a field for this evaluation.
Another `--data.source` than the run's evaluates the run on other data and writes
`eval/transfer_*.json`. Another `--data.label` evaluates another label field of the data and writes
`eval/label_*.json`. With --pretrained, the workdir is created for the evaluation of these weights.
"""

import pathlib
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from ssl_jax import cli, inputs
from ssl_jax import config as configuration
from ssl_jax.config import same_data
from ssl_jax.errors import BAD_CONFIG, USAGE, Fault, count
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import workdir

PRETRAINED = "pretrained"  # section in the config of a workdir that evaluates given weights
SECTIONS = ("data", "eval")  # sections that the command line may change


def main() -> None:
    """Runs the verb; see the module's docstring."""
    path = pathlib.Path(flags.FLAGS.workdir).expanduser().absolute()
    changes = {name: config_flags.get_override_values(flags.FLAGS[name]) for name in SECTIONS}
    if flags.FLAGS.data_dir:
        changes["data"].setdefault("dir", flags.FLAGS.data_dir)
    weights = flags.FLAGS.pretrained
    with Stop(ignore_signals_after=True) as stop:
        if weights:  # JAX reads them
            cli.start(stop)
        config = config_for_weights(path, weights, changes) if weights else config_of_run(path)
        data = evaluation_data(config, changes["data"], flags.FLAGS.data_dir)
        config.eval.update(changes["eval"])
        check_config(config, data)
        check_splits(config, data, path)
        cli.start(stop)
        require_same_command(config, data)
        evaluate(config, path, data)


def evaluation_data(config: ConfigDict, changes: dict[str, Any], data_dir: str) -> ConfigDict:
    """Returns the `data` section of the evaluation.

    Args:
      config: config of the workdir. Its data.dir is set to `data_dir`, if given.
      changes: fields of `data` that the command line sets.
      data_dir: folder of the config's own data on this machine; "" if data.dir is correct.
    """
    if data_dir:
        config.data.dir = data_dir
    data = config.data.copy_and_resolve_references()
    same_data.update(data, changes)
    return data


def config_of_run(path: pathlib.Path) -> ConfigDict:
    """Returns the config of the run at `path`.

    Raises:
      Fault: there is no run, or it is fine-tuned.
    """
    config = configuration.load(path)
    if "finetune" in config:
        raise Fault(
            f"{path} is fine-tuned: its accuracy is in eval/finetune.json. To evaluate its frozen "
            f"encoder, give --pretrained={path} and another --workdir",
            USAGE,
        )
    return config


def check_config(config: ConfigDict, data: ConfigDict) -> None:
    """Checks the config of the workdir together with the `data` section of the evaluation.

    Raises:
      Fault: bad values, data that the encoder does not take, or another part of the same data held
        out.
    """
    same_data.check_encoder(config.data, data, "this encoder")
    same_data.check_held_out(config.data, data)
    channels = config.data.get("channels")
    if channels and data.get("channels", 3) != channels:
        message = f"data.channels={data.channels}: the encoder takes images of "
        raise Fault(f"{message}{count(channels, 'channel')}; leave --data.channels out", BAD_CONFIG)
    whole = config.copy_and_resolve_references()
    whole.data = data
    if problems := configuration.problems(whole):
        raise Fault("bad config:\n  " + "\n  ".join(problems), BAD_CONFIG)


def check_splits(config: ConfigDict, data: ConfigDict, path: pathlib.Path) -> None:
    """Checks that the evaluation does not mix test sets in the workdir's own files.

    Other data, a transfer, have files of their own. A workdir without evaluation split has no
    numbers that an evaluation could replace.

    Raises:
      Fault: the examples are others of the workdir's own data.
    """
    own = config.data
    names = [name for name in own if configuration.is_identity(f"data.{name}", own.source)]
    if own.eval_split and not own.get("holdout", 0):
        names.append("eval_split")
    changed = [name for name in names if name in data and data[name] != own[name]]
    if changed and not same_data.is_transfer(own, data):
        name, weights = changed[0], config.get(PRETRAINED, {}).get("path", path)
        raise Fault(
            f"data.{name}={data[name]!r}: {path} holds results for data.{name}={own[name]!r}, "
            "which would be replaced. Evaluate other examples in a workdir of their own: "
            f"--workdir=NEW --pretrained={weights}",
            BAD_CONFIG,
        )


def config_for_weights(path: pathlib.Path, weights: str, changes: dict[str, Any]) -> ConfigDict:
    """Returns the config of the workdir at `path`, existing or new, for the encoder at `weights`.

    Raises:
      Fault: the workdir belongs to another run, or there is no encoder at `weights`.
    """
    origin = str(pathlib.Path(weights).expanduser().absolute())
    if (path / "config.json").exists():
        config = configuration.load(path)
        if config.get(PRETRAINED, {}).get("path") != origin:
            message = f"{path} holds another run; choose another --workdir for {weights}"
            raise Fault(message, BAD_CONFIG)
        return config
    config = configuration.evaluation_config()
    if workdir.is_run(origin):
        trained = configuration.load(pathlib.Path(origin))
        if inputs.modality(trained.data.source) is not inputs.modality("folder"):
            return _config_of_modality(trained, origin, changes)
        config.data.update(trained.data)
        config.eval.update(trained.eval)
    elif "source" not in changes["data"] and workdir.exists(origin):
        message = f"--pretrained={weights} brings no data: name them, e.g. --data.source=folder"
        raise Fault(f"{message} --data.dir=IMAGES", USAGE)
    config.eval.update(changes["eval"])
    before = config.data.copy_and_resolve_references()
    same_data.update(config.data, changes["data"])
    same_data.check_encoder(before, config.data, "this encoder")
    if workdir.is_run(origin):
        same_data.check_held_out(trained.data, config.data)
    with config.unlocked():
        config[PRETRAINED] = {"path": origin}
    check_config(config, config.data)

    from ssl_jax.pretrained import backbone

    encoder = backbone.load(origin)
    with config.unlocked():
        fields = dict(encoder.weights.model)
        config.model = {**fields, "dtype": "auto", "bn_group": 0}
        config.method = {"name": fields["name"]}
        config[PRETRAINED].origin = encoder.origin
    config.augment.size = encoder.size
    if config.data.channels != encoder.channels:
        if "channels" in changes["data"]:
            message = f"--data.channels={config.data.channels}: {weights} takes images of"
            raise Fault(f"{message} {count(encoder.channels, 'channel')}", BAD_CONFIG)
        config.data.channels = encoder.channels
    if encoder.channels != 3:  # of the views by which alignment and uniformity are measured
        config.augment.update(saturation=0.0, hue=0.0, grayscale=0.0)
    if "crop" not in changes["eval"]:
        config.eval.crop = encoder.crop
    return config


def _config_of_modality(trained: ConfigDict, origin: str, changes: dict[str, Any]) -> ConfigDict:
    """Returns the config for the encoder of a run that is not on images: that of the run.

    Views and evaluation arrays stay those of the run; only the data and the evaluation may change.
    Protocols that need more of the run than its encoder are left out, unless the command line names
    them.
    """
    config = trained.copy_and_resolve_references()
    config.eval.update(changes["eval"])
    same_data.update(config.data, changes["data"])
    same_data.check_encoder(trained.data, config.data, "this encoder")
    same_data.check_held_out(trained.data, config.data)
    with config.unlocked():
        if "finetune" in config:
            del config.finetune
        config.method = {"name": trained.method.name}
        config[PRETRAINED] = {"path": origin, "origin": ""}
    check_config(config, config.data)

    from ssl_jax.evals import protocols
    from ssl_jax.pretrained import backbone

    if "protocols" not in changes["eval"]:
        needs = {name: protocols.get(name).needs for name in config.eval.protocols}
        alone = (name for name, need in needs.items() if not (need.towers or need.vectors))
        config.eval.protocols = tuple(alone)
    config[PRETRAINED].origin = backbone.load(origin).origin
    return config


def evaluate(config: ConfigDict, path: pathlib.Path, data: ConfigDict | None = None) -> None:
    """Restores the encoder of the workdir at `path` and evaluates it.

    Args:
      config: config of the workdir.
      path: the workdir; a new one gets its config.json as soon as the data are found.
      data: `data` section of the evaluation, the config's own by default. Other data make this a
        transfer, and another label field gets its own files.

    Raises:
      Fault: no checkpoint, data that cannot be read, or the first fault of a protocol.
    """
    import jax

    from ssl_jax import components, parallel
    from ssl_jax.data.source import no_examples
    from ssl_jax.evals import evaluation
    from ssl_jax.evals.context import Context
    from ssl_jax.jobs import bootstrap
    from ssl_jax.rundir import identity

    data = config.data if data is None else data
    with_data = config.copy_and_resolve_references()
    with_data.data = data
    transfer = same_data.is_transfer(config.data, data)
    parallel.use_cpu_cores_as_devices(config.eval.batch_size)
    bootstrap.print_devices()
    mesh = parallel.make_mesh()
    with jax.set_mesh(mesh):
        subject = _subject(config, path, mesh, transfer=transfer)
        if evaluation.needs_examples(config):
            source = components.open_source(with_data, data.split, subject.facts)
            with_data, adapted = components.adapt_to_data(with_data, source)
            if adapted:
                bootstrap.print_once(adapted)
            test = components.open_test_source(with_data, source)
            unlabelled = None if test else components.open_unlabelled_test(with_data, source)
        else:  # the text of word vectors may be gone
            source, test, unlabelled = no_examples(data.source), None, None
        tests = {"test": test, "unlabelled test": unlabelled}
        identity.require_same_data(train=source, **tests)
        # Not earlier: an attempt that finds no data leaves no workdir behind.
        bootstrap.run_on_process_0(lambda: _create_workdir(config, path))
        bootstrap.check_shared_folder(path)
        own = "" if transfer or not source.size else config.data.get("label", "")
        label = _other_label(source, own)
        evaluation.evaluate(
            Context(with_data, mesh, subject, source, test, path, transfer, label, unlabelled)
        )


def require_same_command(config: ConfigDict, data: ConfigDict) -> None:
    """Raises Fault if processes of the job evaluate something else, or by other code."""
    from ssl_jax.rundir import identity

    with_data = config.copy_and_resolve_references()
    with_data.data = data
    identity.require_same_command(with_data)


def _create_workdir(config: ConfigDict, path: pathlib.Path) -> None:
    if not (path / "config.json").exists():
        with workdir.open_workdir(path) as folder:
            folder.write_json("config.json", config.to_dict())


def _other_label(source: Any, own: str) -> str:
    """Returns the label field that `source` uses if it is not `own`; else "".

    Args:
      source: opened evaluation data.
      own: `data.label` of the subject's own evaluation; "" is the default field of the data.
    """
    from ssl_jax.data.source import choose_label

    same = choose_label(source, own).label_field == source.label_field
    return "" if same else source.label_field


def _subject(config: ConfigDict, path: pathlib.Path, mesh: Any, *, transfer: bool) -> Any:
    import jax
    import jax.numpy as jnp

    from ssl_jax import components
    from ssl_jax.evals import subjects
    from ssl_jax.pretrained import backbone
    from ssl_jax.rundir import identity

    baselines = config.eval.baselines
    if PRETRAINED not in config:
        return subjects.subject_from_checkpoint(
            config, path, mesh, baselines=baselines, teacher=not transfer
        )
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    encoder = backbone.load(config[PRETRAINED].path, dtype=dtype)
    identity.require_same_weights("pretrained", encoder.variables)
    return subjects.subject_from_backbone(
        encoder,
        config.method.name,
        components.make_input(config),
        mesh,
        baselines=baselines,
        seed=config.train.seed,
    )


if __name__ == "__main__":
    cli.define_workdir()
    cli.define_processes()
    cli.define_section("eval")
    cli.define_section("data")
    flags.DEFINE_string("data_dir", "", "Folder of the run's data, if they have moved.")
    flags.DEFINE_string("pretrained", "", "Weights to evaluate instead of the run in --workdir.")
    cli.run(main)
