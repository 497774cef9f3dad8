"""Evaluate the newest checkpoint of a run, or a pre-trained encoder, beside two baselines.

    python -m ssl_jax.evaluate --workdir=runs/digits --eval.labels_per_class="(2, 10, 0)"
    python -m ssl_jax.evaluate --workdir=runs/digits --eval.protocols="('few_shot', 'layers')"
    python -m ssl_jax.evaluate --workdir=runs/digits --data.source=tfds:cifar10 --data.dir=DATA_DIR
    python -m ssl_jax.evaluate --workdir=runs/weights --pretrained=runs/tuned --data.source=digits

Writes `WORKDIR/eval/*.json`, each number with its protocol, and prints the tables. The protocols
are in the config's `eval` section; `--eval.FIELD=VALUE` changes a field for this evaluation. By
another `--data.source` than the run's, what was learned there is tried here, into
`eval/transfer_*.json`. With --pretrained the workdir is no run's, and made where there is none.
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

PRETRAINED = "pretrained"  # section of the config of a workdir that no training made
SECTIONS = ("data", "eval")  # that the command line may change


def main() -> None:
    """The verb: see the module's docstring."""
    path = pathlib.Path(flags.FLAGS.workdir).expanduser().absolute()
    changes = {name: config_flags.get_override_values(flags.FLAGS[name]) for name in SECTIONS}
    if flags.FLAGS.data_dir:
        changes["data"].setdefault("dir", flags.FLAGS.data_dir)
    weights = flags.FLAGS.pretrained
    with Stop(ignore_signals_after=True) as stop:
        if weights:  # JAX reads them
            cli.start(stop)
        config = pretrained(path, weights, changes) if weights else of_run(path)
        data = given_data(config, changes["data"], flags.FLAGS.data_dir)
        config.eval.update(changes["eval"])
        check(config, data)
        cli.start(stop)
        evaluate(config, path, data)


def given_data(config: ConfigDict, changes: dict[str, Any], moved: str) -> ConfigDict:
    """The section of data to evaluate by.

    Args:
      changes: fields of it that differ from the config's.
      moved: where the config's own data lie here, "" for where it says; written into the config.
    """
    if moved:
        config.data.dir = moved
    data = config.data.copy_and_resolve_references()
    data.update(changes)
    return data


def of_run(path: pathlib.Path) -> ConfigDict:
    """The config of the run at `path`; raises Fault where there is none, or a fine-tuned one."""
    config = configuration.load(path)
    if "finetune" in config:
        raise Fault(
            f"{path} is fine-tuned: its accuracy is in eval/finetune.json; to evaluate its frozen "
            f"encoder, give --pretrained={path} and another --workdir",
            USAGE,
        )
    return config


def check(config: ConfigDict, data: ConfigDict) -> None:
    """Raises Fault with all that is wrong with the config, evaluated by these data."""
    whole = config.copy_and_resolve_references()
    whole.data = data
    if found := configuration.problems(whole):
        raise Fault("bad config:\n  " + "\n  ".join(found), BAD_CONFIG)


def pretrained(path: pathlib.Path, weights: str, changes: dict[str, Any]) -> ConfigDict:
    """The config of the workdir at `path`, which need not be there, for the encoder at `weights`.

    Raises:
      Fault: the workdir holds something else, or there is no encoder.
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
        before = configuration.load(pathlib.Path(origin))
        config.data.update(before.data)
        config.eval.update(before.eval)
    elif "source" not in changes["data"] and workdir.exists(origin):
        message = f"--pretrained={weights} brings no data: name them, e.g. --data.source=folder"
        raise Fault(f"{message} --data.dir=IMAGES", USAGE)
    config.eval.update(changes["eval"])
    config.data.update(changes["data"])
    with config.unlocked():
        config[PRETRAINED] = {"path": origin}
    check(config, config.data)

    from ssl_jax.pretrained import backbone

    encoder = backbone.load(origin)
    with config.unlocked():
        fields = dict(encoder.weights.model)
        config.model = {**fields, "dtype": "auto", "bn_group": 0}
        config.method = {"name": fields["name"]}
        config[PRETRAINED].origin = encoder.origin
    config.augment.size = encoder.size
    if "crop" not in changes["eval"]:
        config.eval.crop = encoder.crop
    return config


def evaluate(config: ConfigDict, path: pathlib.Path, data: ConfigDict | None = None) -> None:
    """Restores what the workdir at `path` is of, and evaluates it.

    Args:
      config: of the workdir.
      data: the config's section; others than the config's own make it a transfer.
    """
    import jax

    from ssl_jax import assess, components, parallel
    from ssl_jax.jobs import bootstrap

    data = config.data if data is None else data
    here = config.copy_and_resolve_references()
    here.data = data
    transfer = is_transfer(config.data, data)
    parallel.use_cpu_cores_as_devices(config.eval.batch_size)
    bootstrap.print_devices()
    mesh = parallel.make_mesh()
    with jax.set_mesh(mesh):
        subject = _subject(config, path, mesh, transfer=transfer)
        source = components.open_source(here, data.split)
        test = components.open_test_source(here, source)
        if not (path / "config.json").exists():
            # Only now: an attempt that found no data binds the workdir to nothing.
            with workdir.open_workdir(path) as folder:
                folder.write_json("config.json", config.to_dict())
        assess.evaluate_subject(assess.Setup(here, mesh, subject, source, test, path, transfer))


def is_transfer(own: ConfigDict, given: ConfigDict) -> bool:
    """Whether the given data are others: not another split, nor the same ones elsewhere."""
    if own.source != given.source:
        return True
    return given.source == "folder" and _folder(own.dir) != _folder(given.dir)


def _folder(path: str) -> pathlib.Path:
    return pathlib.Path(path).expanduser().resolve()


def _subject(config: ConfigDict, path: pathlib.Path, mesh: Any, *, transfer: bool) -> Any:
    import jax
    import jax.numpy as jnp

    from ssl_jax.assess import subjects
    from ssl_jax.pretrained import backbone

    baselines = config.eval.baselines
    if PRETRAINED not in config:
        return subjects.of_checkpoint(config, path, mesh, baselines=baselines, teacher=not transfer)
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    encoder = backbone.load(config[PRETRAINED].path, dtype=dtype)
    name, seed = config.method.name, config.train.seed
    return subjects.of_backbone(encoder, name, mesh, baselines=baselines, seed=seed)


if __name__ == "__main__":
    cli.define_workdir()
    cli.define_processes()
    cli.define_section("eval")
    cli.define_section("data")
    flags.DEFINE_string("data_dir", "", "Where the data lies here, if not where it was trained.")
    flags.DEFINE_string("pretrained", "", "An encoder, in the place of --workdir's run.")
    cli.run(main)
