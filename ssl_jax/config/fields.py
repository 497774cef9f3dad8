"""The table of all config fields: default, meaning, valid values and identity class of each.

Two groups of fields are defined elsewhere. The modality of the data source defines the fields of
`config.augment` and some fields of `config.data`. A method's `make` takes the hyperparameters of
`config.method`.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssl_jax import inputs, optim
from ssl_jax.config import valid
from ssl_jax.field import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    BOOLEAN,
    FINITE,
    FINITE_ABOVE_0,
    FREE,
    IDENTITY,
    POSITIVE_FRACTION,
    SCHEDULE,
    SEED,
    Field,
    Unset,
    any_value,
    one_of,
    or_auto,
    words,
)
from ssl_jax.models import options

STRING = any_value("a string")
PATHS = any_value("paths of parameters, such as ('encoder/patch_embed',)")
GROUPS = any_value("{module: {field: value}}, such as {'predictor': {'schedule': 'constant'}}")

DATA = (
    Field("data.source", "digits", "Source of the examples.", valid.SOURCE, IDENTITY),
    Field("data.dir", "",
          "Folder of the images, or tensorflow-datasets' data_dir; '': its own default.", STRING,
          FREE),
    Field("data.split", "train", "Split for training; of tfds also 'train[:10000]'.", STRING,
          IDENTITY),
    Field("data.eval_split", "test", "Labelled split for evaluation; '': none.", STRING, FREE),
    Field("data.holdout", 0.0,
          "Fraction of data.split to hold out: evaluated, never trained on; 0: none.",
          BELOW_1, IDENTITY, before=0.0),
    Field("data.label", "", "Label field for the probe and for evaluation; '': the default field.",
          STRING, FREE, before=""),
    Field("data.on_bad_image", "stop",
          "quarantine replaces an unreadable image by the next readable image.",
          one_of(*valid.ON_BAD_IMAGE), FREE),
    Field("data.max_bad", 0.001,
          "Largest fraction of the images that quarantine replaces; 5 of 50 or more are always "
          "allowed.", FINITE, FREE),
)  # fmt: skip

MODEL = (
    Field("model.name", Unset(str), "Name of the encoder.", valid.ENCODER, IDENTITY),
    Field("model.mean", (0.0, 0.0, 0.0), "Mean that is subtracted from images in [0, 1].",
          valid.MEAN, IDENTITY, before=(0.0, 0.0, 0.0)),
    Field("model.std", (1.0, 1.0, 1.0), "Standard deviation that images are then divided by.",
          valid.STD, IDENTITY, before=(1.0, 1.0, 1.0)),
    Field("model.init", "", "Run, export or weights file that the encoder starts from; '': none.",
          STRING, IDENTITY, before=""),
    Field("model.bn_group", 0, "Rows (views of images) that share BatchNorm statistics; 0: all.",
          or_auto(AT_LEAST_0), IDENTITY),
    Field("model.dtype", "auto",
          "Dtype of activations; auto: bfloat16 on accelerators, float32 on CPUs.",
          one_of(*valid.DTYPES), FREE),
)  # fmt: skip
RESNET = (
    Field("model.width", 1.0, "Factor on the number of channels.", ABOVE_0, IDENTITY),
    Field("model.stem", "imagenet", "First layers: imagenet for large images, cifar for small.",
          one_of(*options.STEMS), IDENTITY),
    Field("model.sk_ratio", 0.0, "Reduction of selective kernels; SimCLR v2: 0.0625; 0: none.",
          FINITE, IDENTITY),
    Field("model.zero_gamma", True, "Residual blocks start as the identity.", BOOLEAN, IDENTITY),
    Field("model.padding", "torch", "Padding of convolutions and pooling.",
          one_of(*options.PADDINGS), IDENTITY, before="torch"),
    Field("model.colors", "rgb",
          "Channels that the network sees: images as they are, lightness, or Lab of RGB images.",
          one_of(*options.COLORS), IDENTITY, before="rgb"),
    Field("model.norm", "batch",
          "Normalisation; none: only learned scales and biases. Of sound: none or channel.",
          one_of(*options.NORMS, *options.FRAME_NORMS[1:]), IDENTITY, before="batch"),
    Field("model.patch", 0, "Side of the patches that are encoded one by one; 0: whole images.",
          AT_LEAST_0, IDENTITY, before=0),
    Field("model.patch_stride", 0, "Distance of neighbouring patches, in pixels.",
          AT_LEAST_0, IDENTITY, before=0),
)  # fmt: skip
SPLIT_RESNET = (
    Field("model.first", (0,), "split_resnet: channels that the first half sees; 0: the first.",
          valid.CHANNELS, IDENTITY),
    Field("model.second", (1, 2), "split_resnet: channels that the second half sees.",
          valid.CHANNELS, IDENTITY),
)  # fmt: skip
VIT = (
    Field("model.patch_size", 16, "Side of a patch, in pixels.", AT_LEAST_1, IDENTITY),
    Field("model.mlp_ratio", 4, "Hidden width of an MLP, divided by the width of a token.",
          AT_LEAST_1, IDENTITY),
    Field("model.pool", "token", "Features: the class token, or the mean of the patch tokens.",
          one_of(*options.POOLS), IDENTITY),
    Field("model.positions", "sincos", "Position embedding.", one_of(*options.POSITIONS), IDENTITY,
          before="sincos"),
)  # fmt: skip
DBN = (
    Field("model.widths", (1024, 1024), "Hidden units of each machine or layer.", valid.WIDTHS,
          IDENTITY),
    Field("model.visible", "gaussian", "Type of the visible units.", one_of(*options.VISIBLE),
          IDENTITY),
    Field("model.sigma", 1.0, "Standard deviation of Gaussian units.", FINITE_ABOVE_0, IDENTITY),
)  # fmt: skip

SDAE = (
    Field("model.kind", "dense", "Kind of the layers.", one_of(*options.KINDS), IDENTITY),
)  # fmt: skip

AUDIO = (
    Field("model.strides", (5, 4, 2, 2, 2), "Strides of the convolutions over samples.",
          valid.WIDTHS, IDENTITY),
    Field("model.kernels", (10, 8, 4, 4, 4), "Kernels of the convolutions over samples.",
          valid.WIDTHS, IDENTITY),
    Field("model.channels", 512, "Channels of the convolutions over samples.", AT_LEAST_1,
          IDENTITY),
    Field("model.context", 256, "Width of the recurrent network.", AT_LEAST_1, IDENTITY),
)  # fmt: skip

METHOD = (Field("method.name", Unset(str), "Name of the method.", valid.METHOD, IDENTITY),)

OPTIM = (
    Field("optim.name", Unset(str), "Name of the optimizer.", one_of(*optim.NAMES), IDENTITY),
    Field("optim.lr", Unset(float), "Base learning rate, before `lr_rule`.", FINITE, SCHEDULE),
    Field("optim.lr_rule", Unset(str),
          "Peak rate: constant: lr; linear: lr * batch / 256; sqrt: lr * sqrt(batch).",
          one_of(*optim.LR_RULES), SCHEDULE),
    Field("optim.schedule", Unset(str), "Shape of the learning rate after the warm-up.",
          one_of(*optim.SCHEDULES), SCHEDULE),
    Field("optim.warmup_epochs", Unset(float), "Length of the linear warm-up, in epochs.",
          or_auto(FINITE), SCHEDULE),
    Field("optim.drops", (0.6, 0.8), "step schedule: fractions of the run at which the rate drops.",
          valid.DROPS, SCHEDULE),
    Field("optim.drop", 0.1, "step schedule: factor of each drop.", valid.DROP, SCHEDULE),
    Field("optim.weight_decay", Unset(float),
          "Weight decay; biases and normalisation parameters have none, unless decay_all is set.",
          FINITE, SCHEDULE),
    Field("optim.weight_decay_end", Unset(float, required=False),
          "Weight decay at the end of a half cosine; None: constant.", valid.DECAY_END, IDENTITY),
    Field("optim.momentum", Unset(float), "Momentum of lars and sgd; b1 of adamw.", BELOW_1,
          SCHEDULE),
    Field("optim.nesterov", False, "Nesterov momentum of lars and sgd.", BOOLEAN, SCHEDULE),
    Field("optim.b2", 0.999, "Decay of adamw's second moment.", BELOW_1, SCHEDULE),
    Field("optim.lr_in_momentum", True,
          "lars: apply the rate before the momentum; False: after it, as BYOL and MoCo v3.",
          BOOLEAN, IDENTITY),
    Field("optim.trust_coefficient", 0.001,
          "lars: length of an update at rate 1, as a fraction of the weight's length.",
          FINITE_ABOVE_0, SCHEDULE, before=0.001),
    Field("optim.trust_clip", False,
          "lars: divide the trust ratio by the rate and limit it to 1, as solo-learn's clip_lr.",
          BOOLEAN, IDENTITY, before=False),
    Field("optim.decay_all", False,
          "Also decay biases and normalisation parameters, as PyTorch does by default.", BOOLEAN,
          SCHEDULE, before=False),
    Field("optim.adapt_all", False,
          "lars: also adapt biases and normalisation parameters, as SwAV's LARC.", BOOLEAN,
          SCHEDULE, before=False),
    Field("optim.groups", {}, "Optimizer fields that differ for parts of the model.", GROUPS,
          IDENTITY),
    Field("optim.frozen", (), "Paths of parameters that never change.", PATHS, IDENTITY),
    Field("optim.clip_norm", 0.0, "Largest norm of the whole gradient; 0: no limit.", FINITE,
          SCHEDULE),
)  # fmt: skip
# Fields of the whole optimizer, which a group of parameters cannot change.
NOT_IN_GROUPS = ("groups", "frozen", "clip_norm")

TRAIN = (
    Field("train.batch_size", Unset(int), "Global batch, in examples.", or_auto(AT_LEAST_1),
          IDENTITY),
    Field("train.epochs", 0.0, "Length of the run, in epochs.", or_auto(FINITE), SCHEDULE),
    Field("train.steps", 0, "Length of the run, in steps; if above 0, it replaces epochs.",
          AT_LEAST_0, SCHEDULE),
    Field("train.microbatch", 0, "Examples encoded at once over all devices; 0: the whole batch.",
          AT_LEAST_0, FREE),
    Field("train.noise_scale", False, "Log the gradient noise scale; needs micro-batches.", BOOLEAN,
          FREE),
    Field("train.seed", 0, "Root of all random numbers.", SEED, IDENTITY),
    Field("train.probe", True, "Train an online linear probe if there are labels.", BOOLEAN,
          IDENTITY),
    Field("train.stop_on", "",
          "Accuracy that ends a run early when it no longer rises; '': train all steps.",
          one_of("", *valid.STOP_ON), SCHEDULE, before=""),
    Field("train.stop_every", 500, "Steps between two evaluations of stop_on.", AT_LEAST_1,
          SCHEDULE, before=500),
    Field("train.stop_patience", 5,
          "Evaluations in a row without a new best accuracy after which the run ends.", AT_LEAST_1,
          SCHEDULE, before=5),
    Field("train.log_every", 10, "Steps between two log lines.", AT_LEAST_1, FREE),
    Field("train.checkpoint_every", 500, "Steps between two checkpoints.", AT_LEAST_1, FREE),
    Field("train.keep", 2, "Number of checkpoints to keep.", AT_LEAST_1, FREE),
    Field("train.watchdog", 1.0, "Factor on the watchdog's time limits; 0: no limits.", FINITE,
          FREE, before=1.0),
)  # fmt: skip

PARALLEL = (
    Field("parallel.fsdp", 1, "Devices that divide the parameters; 1: none.", AT_LEAST_1, FREE),
)

EVAL = (
    Field("eval.protocols", ("knn", "linear", "label_free"),
          "Evaluations to run; docs/evaluation.md describes them.", words(*valid.PROTOCOLS), FREE),
    Field("eval.batch_size", 256, "Examples per batch.", AT_LEAST_1, FREE),
    Field("eval.crop", 1.0, "Central crop, as a fraction of the short side; ImageNet: 0.875.",
          POSITIVE_FRACTION, FREE),
    Field("eval.knn_k", 200, "knn: number of neighbours.", or_auto(AT_LEAST_1), FREE),
    Field("eval.knn_temperature", 0.1, "knn: temperature of the vote's weights.", ABOVE_0, FREE),
    Field("eval.labels_per_class", (0,),
          "linear: labels per class, one evaluation per number; 0: all labels.", valid.LABELS,
          FREE),
    Field("eval.draws", 1, "linear: random draws, if not all labels are used.", AT_LEAST_1, FREE),
    Field("eval.few_shot_draws", 5, "few_shot: random draws of labels.", AT_LEAST_1, FREE),
    Field("eval.sgd_epochs", 90.0, "linear_sgd: length, in epochs.", FINITE_ABOVE_0, FREE),
    Field("eval.sgd_lr", (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
          "linear_sgd: rates to try, times batch / 256; the best is used.", valid.RATES, FREE),
    Field("eval.sgd_batch_size", 256, "linear_sgd: examples per batch.", AT_LEAST_1, FREE),
    Field("eval.frames", 20000, "frames: training frames, and as many test frames.", AT_LEAST_1,
          FREE, before=20000),
    Field("eval.prompts", ("a photo of a {}.",),
          "zero_shot: texts with {} in place of a class name; CLIP averages 80 for ImageNet.",
          valid.PROMPTS, FREE, before=("a photo of a {}.",)),
    Field("eval.analogy_file", "",
          "analogy: file of questions, in the format of Google's questions-words.txt; '': none.",
          STRING, FREE, before=""),
    Field("eval.similarity_file", "",
          "similarity: file of pairs of words with a score in each line; '': none.", STRING, FREE,
          before=""),
    Field("eval.neighbours_of", (),
          "neighbours: words whose neighbours are listed; (): some of the most frequent.",
          any_value("words, such as ('film', 'england')"), FREE, before=()),
    Field("eval.max_train", 0, "Training examples to use; 0: all.", AT_LEAST_0, FREE),
    Field("eval.baselines", True, "Also evaluate the untrained encoder and the raw input.", BOOLEAN,
          FREE),
)  # fmt: skip

FINETUNE = (
    Field("finetune.pretrained", "", "Run, export or weights file to fine-tune.", STRING, IDENTITY),
    Field("finetune.head_layer", 0, "Layers of the projection head to keep; SimCLR v2: 1.",
          AT_LEAST_0, IDENTITY),
    Field("finetune.fraction", 1.0, "Fraction of each class's labels.", POSITIVE_FRACTION,
          IDENTITY),
    Field("finetune.labels_per_class", 0,
          "Labels per class, in place of a fraction; 0: use the fraction.", AT_LEAST_0, IDENTITY),
)  # fmt: skip

# Every field except those that the modality defines.
FIELDS = (
    *(*DATA, *MODEL, *RESNET, *SPLIT_RESNET, *VIT, *DBN, *SDAE, *AUDIO, *METHOD, *OPTIM),
    *(*TRAIN, *PARALLEL, *EVAL, *FINETUNE),
)
# Identity classes of fields without a row: hyperparameters of a method, fields of a group of
# parameters, changes of views, and fields of older versions. Other fields without a row are free.
_CLASS_BY_PREFIX = {
    **dict.fromkeys(("augment.", "model.", "method.", "finetune.", "optim.groups."), IDENTITY),
    "optim.": SCHEDULE,
}


def augment_fields(source: str) -> tuple[Field, ...]:
    """Returns the table of `config.augment` for a data source; names are like "augment.size".

    If the modality has no `FIELDS`, the table is empty. All its fields are of the identity class.
    """
    return _modality_fields(source, "FIELDS", "augment")


def data_fields(source: str) -> tuple[Field, ...]:
    """Returns the options of a data source, such as "data.channels": `DATA_FIELDS` of the modality.

    `sources.open_source` gets their values.
    """
    return _modality_fields(source, "DATA_FIELDS", "data")


def source_options(data: ConfigDict) -> dict[str, Any]:
    """Returns the options of the source in the config's `data` section, by name."""
    common = {row.name for row in DATA}
    return {name: value for name, value in data.items() if f"data.{name}" not in common}


def _modality_fields(source: str, table: str, section: str) -> tuple[Field, ...]:
    rows = getattr(inputs.modality(source), table, ())
    return tuple(row._replace(name=f"{section}.{row.name}") for row in rows)


# Values of fields that older configs lack. Only images have configs that old.
IMPLIED = {
    field.name: field.before
    for field in (*FIELDS, *data_fields("digits"), *augment_fields("digits"))
    if field.before is not ...
}
_CLASSES = {field.name: field.kind for field in FIELDS}


def identity_class(name: str, source: str = "digits") -> str:
    """Returns IDENTITY, SCHEDULE or FREE for a field such as "optim.lr".

    Args:
      name: path of the field in the config.
      source: `config.data.source`, whose modality has the tables of `augment` and of its data.
    """
    tables = {"augment": augment_fields, "data": data_fields}
    rows = tables.get(name.partition(".")[0], lambda source: ())(source)
    classes = _CLASSES | {row.name: row.kind for row in rows}
    if name in classes:
        return classes[name]
    kinds = (kind for prefix, kind in _CLASS_BY_PREFIX.items() if name.startswith(prefix))
    return next(kinds, FREE)


def is_identity(name: str, source: str = "digits") -> bool:
    """Tells whether a run with another value of the field is another run."""
    return identity_class(name, source) == IDENTITY


class Row(NamedTuple):
    """Text of one field, for the documentation."""

    name: str
    default: str  # "required" for a field without a default value
    meaning: str
    valid: str
    kind: str  # identity, schedule or free


def describe(source: str = "digits") -> list[Row]:
    """Returns one row per field, sorted by section.

    Args:
      source: `config.data.source`, whose modality decides the fields of `augment` and its options.
    """
    models = (MODEL, RESNET, SPLIT_RESNET, VIT, DBN, SDAE, AUDIO)
    data = (*DATA, *data_fields(source))
    sections = (data, augment_fields(source), *models, METHOD, OPTIM, TRAIN)
    fields = [field for section in (*sections, PARALLEL, EVAL, FINETUNE) for field in section]
    return [Row(f.name, _shown(f.default), f.meaning, f.valid.text, f.kind) for f in fields]


def _shown(default: Any) -> str:
    if isinstance(default, Unset):
        return "required" if default.required else "None"
    return repr(default)
