"""Numbers of the authors' recipes, read from their code and papers.

RECIPES has one entry per variant. Its keys are those of `test_official_recipes.quantities`:
"optim/peak" is the learning rate after the warm-up at the recipe's own batch, for example.
`differs` lists the quantities in which a config differs from its source on purpose, with the
config's value and the reason. The test fails if a config has any other value.

Sources, with the files that the comments name:

  BT   facebookresearch/barlowtwins: main.py, README.md
  CP   paper, section 3.2 (v1); paper, sections 3 and 4 and appendix (v2), recalled
  RS   rschwarz15/CPCV2-PyTorch: README.md, argparser/train_CPC_argparser.py (a reimplementation)
  BY   google-deepmind/deepmind-research, byol: configs/byol.py, utils/*.py
  DI   facebookresearch/dino: main_dino.py, README.md ("vanilla" run)
  JI   facebookresearch/vissl: configs/config/pretrain/jigsaw/jigsaw_8gpu_resnet.yaml
  MAE  facebookresearch/mae: main_pretrain.py, PRETRAIN.md, models_mae.py; paper, appendix A.1
  MM   open-mmlab/mmselfsup: configs/selfsup/relative_loc/*.py, configs/selfsup/rotation_pred/*.py,
       configs/selfsup/_base_/*/*.py
  MO   facebookresearch/moco: main_moco.py, moco/builder.py, colab/moco_cifar10_demo.ipynb
  M3   facebookresearch/moco-v3: CONFIG.md, main_moco.py, moco/builder.py, moco/optimizer.py
  NP   zhirongw/lemniscate.pytorch: main.py, cifar.py, README.md
  RN   gidariss/FeatureLearningRotNet: config/CIFAR10_RotNet_NIN4blocks.py, dataloader.py
  SC   google-research/simclr: README.md, run.py, model_util.py, objective.py; paper, appendix B
  SS   facebookresearch/simsiam: main_simsiam.py, simsiam/builder.py; paper, appendices A and D
  SW   facebookresearch/swav: scripts/swav_800ep_pretrain.sh, main_swav.py, src/*.py
  VI   facebookresearch/vicreg: main_vicreg.py, augmentations.py, README.md
  SL   vturrisi/solo-learn: scripts/pretrain/cifar/*.yaml, solo/methods/*.py, solo/losses/*.py,
       solo/utils/lars.py

"Recalled" marks a number of a paper that was not read again in the source. Not in the table,
because no field of a config can express them: docs/methods.md, "What differs from the sources".
"""

from typing import Any, NamedTuple

Values = dict[str, Any]


class Recipe(NamedTuple):
    """A variant of a config."""

    values: Values
    """Official value of every quantity."""

    differs: dict[str, tuple[Any, str]]
    """Quantity -> (value of the config, reason)."""


# Methods and variants without a published recipe for unlabelled images, and why.
NO_RECIPE = {
    "clip": "both papers train on pairs that are not public; tests/methods/test_clip.py has them",
    "context_encoder": "published for an encoder of six convolutions, and not for CIFAR-10",
    "cssl": "no paper describes the whole method",
    "siamese": "both papers learn from labelled or known pairs",
    "rbm": "no recipe is published for whole images without whitening",
    "colorization": "the authors' recipes are for VGG and AlexNet",
    "split_brain": "the authors' recipe is for two halves of AlexNet",
    "vae": "the paper trains on digits and on faces of 20x28 pixels",
    "denoising": "the paper trains on digits, and on natural patches only for filters",
    "distillation": "SimCLR v2's paper gives no complete recipe of the student",
    "jigsaw:cifar10": "papers and VISSL have no recipe for CIFAR-10",
    "relative_position:cifar10": "the paper and mmselfsup have no recipe for CIFAR-10",
    "rotation:cifar10_angle": "the paper has no angles but quarter turns",
}

# ----- images -----
IMAGENET = {"model/mean": (0.485, 0.456, 0.406), "model/std": (0.229, 0.224, 0.225)}
# SL: solo/data/pretrain_dataloader.py.
CIFAR = {"model/mean": (0.4914, 0.4822, 0.4465), "model/std": (0.2470, 0.2435, 0.2616)}
# MO: colab, "Define data loaders"; NP: cifar.py.
CIFAR_WITHIN = CIFAR | {"model/std": (0.2023, 0.1994, 0.2010)}
UNIT = {"model/mean": (0, 0, 0), "model/std": (1, 1, 1)}  # images stay in [0, 1]


def view(
    size: int,
    area: tuple[float, float],
    jitter: tuple[float, ...] = (),
    *,
    gray: float = 0,
    blur: float = 0,
    solarize: float = 0,
    flip: float = 0.5,
    resize: str = "bicubic",
    kernel: float = 0,
) -> Values:
    """Returns the fields of one view.

    Args:
      size: pixels.
      area: range of the crop's area.
      jitter: probability, then strength of brightness, contrast, saturation and hue.
      gray, blur, solarize, flip: probabilities.
      resize: interpolation of the crop.
      kernel: width of the blur's kernel as a fraction of the size; 0: whole Gaussian (Pillow and
        OpenCV with 23 pixels).
    """
    names = ("jitter", "brightness", "contrast", "saturation", "hue")
    return {
        "size": size,
        "crop_area": area,
        "crop_aspect": (3 / 4, 4 / 3),
        "interpolation": resize,
        "flip": flip,
        "grayscale": gray,
        "blur": blur,
        "solarize": solarize,
        "noise": 0,
        **dict(zip(names, jitter or (0,), strict=False)),
        **({"blur_sigma": (0.1, 2), "blur_kernel": kernel} if blur else {}),
    }


def views(first: Values, second: Values | None = None, local: Values | None = None) -> Values:
    """Returns the fields of a recipe's views, named "views/1/size" and so on."""
    named = {"1": first, "2": second, "local": local}
    pairs = ((name, fields) for name, fields in named.items() if fields)
    return {f"views/{name}/{key}": v for name, fields in pairs for key, v in fields.items()}


def pair(size: int, area: tuple[float, float], jitter: tuple[float, ...], **rest: Any) -> Values:
    """Returns the fields of two views of one distribution."""
    one = view(size, area, jitter, **rest)
    return views(one, one)


WEAK = (0.8, 0.4, 0.4, 0.4, 0.1)
BYOL_JITTER = (0.8, 0.4, 0.4, 0.2, 0.1)
STRONG = (0.8, 0.8, 0.8, 0.8, 0.2)
NPID_JITTER = (1, 0.4, 0.4, 0.4, 0.4)


def byol_views(area: tuple[float, float], **rest: Any) -> tuple[Values, Values]:
    """Returns BYOL's two views: blur 1 and 0.1, solarisation 0 and 0.2."""
    colour = {"gray": 0.2} | rest
    first = view(224, area, BYOL_JITTER, blur=1, **colour)
    return first, view(224, area, BYOL_JITTER, blur=0.1, solarize=0.2, **colour)


# ----- networks -----
RESNET = {
    "model/width": 1,
    "model/sk_ratio": 0,
    "model/bn_group": 0,
    "model/padding": "torch",
    "model/colors": "rgb",
    "model/norm": "batch",
    "model/patch": 0,
    "model/patch_stride": 0,
}
RESNET50 = RESNET | {"model/name": "resnet50", "model/stem": "imagenet", "model/zero_gamma": True}
RESNET18 = RESNET | {"model/name": "resnet18", "model/stem": "cifar", "model/zero_gamma": True}
VIT = {
    "model/patch_size": 16,
    "model/pool": "token",
    "model/positions": "sincos",
    "model/bn_group": 0,
}
PADDING = ("torch", "PyTorch's padding, so that weights can be exported; both train equally well")


# ----- optimizers -----
def schedule(
    optimizer: str,
    peak: float,
    decay: float,
    *,
    warmup: float = 0,
    start: float = 0,
    end: float = 0,
    shape: str = "cosine",
    rule: str = "linear",
    **rest: Any,
) -> Values:
    """Returns the quantities of an optimizer and its schedule.

    Args:
      optimizer: name.
      peak: learning rate after the warm-up.
      decay: weight decay at the start.
      warmup: epochs.
      start, end: learning rate in the first step of the warm-up and at the end of the run.
      shape: name of the schedule.
      rule: how the peak follows from the batch.
      rest: other quantities.
    """
    fields = {
        "name": optimizer,
        "peak": peak,
        "lr_rule": rule,
        "decay": decay,
        "decay_end": decay,
        "warmup_epochs": warmup,
        "start": start,
        "end": end,
        "schedule": shape,
        "momentum": 0.9,
        "decay_all": False,
        "clip_norm": 0,
        "groups": {},
        "frozen": (),
    } | rest
    return {f"optim/{name}": value for name, value in fields.items()}


def lars(peak: float, decay: float, *, warmup: float = 10, **rest: Any) -> Values:
    """LARS with eta 0.001 that neither decays nor adapts biases and normalisation parameters."""
    fields = {
        "nesterov": False,
        "lr_in_momentum": False,
        "trust_coefficient": 0.001,
        "trust_clip": False,
        "adapt_all": False,
    }
    return schedule("lars", peak, decay, warmup=warmup, **(fields | rest))


def sgd(peak: float, decay: float, **rest: Any) -> Values:
    """torch.optim.SGD, which decays every parameter."""
    return schedule("sgd", peak, decay, **({"nesterov": False, "decay_all": True} | rest))


def adamw(peak: float, decay: float, b2: float, **rest: Any) -> Values:
    """AdamW with b1 = 0.9."""
    return schedule("adamw", peak, decay, b2=b2, **rest)


STEPS = {"shape": "step", "drops": (0.6, 0.8), "drop": 0.1}  # epochs 120 and 160 of 200


def train(batch: int, epochs: float) -> Values:
    """Length of a run."""
    return {"train/batch_size": batch, "train/epochs": epochs}


# The temperature is constant; the other two fields have no effect then.
CONSTANT = {
    "temperature_schedule": "constant",
    "temperature_end": 0.1,
    "temperature_periods": 0.5,
}
PLAIN_HEAD = {"head_dropout": 0, "head_penalty": "none", "head_penalty_weight": 1e-4}
OPTIONS = {
    "moco": CONSTANT,
    "moco_v3": CONSTANT,
    "simclr": CONSTANT | PLAIN_HEAD,
    "simclr_v2": CONSTANT,
}


def method(name: str, **hyperparameters: Any) -> Values:
    """Hyperparameters of a method, with the options that no published recipe of it uses."""
    fields = {"name": name} | OPTIONS.get(name, {}) | hyperparameters
    return {f"method/{k}": v for k, v in fields.items()}


def heads(**modules: tuple[str, ...]) -> Values:
    """Layers of the heads: width, "bias" if it has one, and the normalisation after it.

    "bn" has scale and bias, "scale" only a scale, "plain" neither. A bias before a normalisation is
    left out: the normalisation cancels it.
    """
    return {f"heads/{name}": layers for name, layers in modules.items()}


ENDS_AT_0 = (0, "the schedule ends at 0")
STARTS_AT_0 = (0, "the warm-up starts at 0")


# ----- solo-learn's recipes for CIFAR-10 -----
# SL: solo/methods/base.py: PyTorch's ResNet-18 (zero_init_residual False) with a CIFAR stem,
# warm-up of 10 epochs from 3e-5, cosine to 0; solo/args: SGD and LARS with momentum 0.9.
SOLO = CIFAR | RESNET18 | {"model/zero_gamma": False} | train(256, 1000)
SOLO_DIFFERS = {"optim/start": STARTS_AT_0}
SOLO_ASYMMETRIC = views(  # SL: augmentations/asymmetric.yaml
    view(32, (0.08, 1), BYOL_JITTER, gray=0.2),
    view(32, (0.08, 1), BYOL_JITTER, gray=0.2, solarize=0.2),
)
SOLO_SYMMETRIC = pair(32, (0.08, 1), STRONG, gray=0.2, blur=0.5)  # SL: symmetric.yaml
SOLO_WEAK = pair(32, (0.08, 1), WEAK, gray=0.2, blur=0.5)  # SL: symmetric_weak.yaml


def solo_lars(lr: float, decay: float, **rest: Any) -> Values:
    """The yaml files: clip_lr True, eta 0.02, exclude_bias_n_norm True; batch 256."""
    fields = {"trust_coefficient": 0.02, "trust_clip": True, "start": 3e-5}
    return lars(lr, decay, **(fields | rest))


RECIPES: dict[str, Recipe] = {}


def _add(name: str, *parts: Values, differs: dict[str, tuple[Any, str]] | None = None) -> None:
    values: Values = {}
    for part in parts:
        values |= part
    RECIPES[name] = Recipe(values, differs or {})


# ----- Barlow Twins -----
# BT main.py: batch 2048, learning_rate_weights 0.2 and learning_rate_biases 0.0048 per 256 images,
# weight_decay 1e-6, end_lr 0.001 of the peak, lambd 0.0051, projector 8192-8192-8192, no biases.
# The paper (section 2.2) has weight decay 1.5e-6.
_add(
    "barlow_twins:imagenet",
    *(IMAGENET, RESNET50, train(2048, 1000), views(*byol_views((0.08, 1)))),
    lars(1.6, 1e-6, end=1.6e-3, bias_peak=0.0384),
    method("barlow_twins", lambda_=0.0051, hidden_dim=8192, output_dim=8192, apart=True),
    {"method/last_bias": False} | heads(head=("8192 bn", "8192 bn", "8192")),
    differs={"optim/end": ENDS_AT_0},
)
# SL barlow.yaml: scale_loss 0.1 multiplies the gradient, but neither decay nor rates: 1e-4 per 0.1
# and 0.3 * 0.1. solo/losses/barlow.py normalises the views one by one, with a bias that it cancels.
_add(
    "barlow_twins:cifar10",
    *(SOLO, SOLO_ASYMMETRIC, solo_lars(0.3, 1e-3, bias_peak=0.03)),
    method("barlow_twins", lambda_=0.0051, hidden_dim=2048, output_dim=2048, apart=True),
    {"method/last_bias": False} | heads(head=("2048 bn", "2048 bn", "2048")),
    differs=SOLO_DIFFERS,
)

# ----- BYOL -----
# BY configs/byol.py: _LR_PRESETS, _WD_PRESETS, _EMA_PRESETS, 10 epochs of warm-up, batch 4096;
# utils/networks.py: MLP with_bias False in the last layer, zero-initialised scale of the last
# BatchNorm of a block (Haiku), padding SAME; byol_experiment.py: target from its own random key;
# utils/augmentations.py: blur_divider 10.
BYOL_VIEWS = views(*byol_views((0.08, 1), kernel=0.1))
BYOL_PADDING = {"model/padding": PADDING}
for _epochs, _lr, _decay, _momentum, _suffix in (
    (1000, 0.2, 1.5e-6, 0.996, ""),
    (300, 0.3, 1e-6, 0.99, "_300"),
    (100, 0.45, 1e-6, 0.99, "_100"),
):
    _add(
        f"byol:imagenet{_suffix}",
        *(IMAGENET, RESNET50, {"model/padding": "same"}, train(4096, _epochs), BYOL_VIEWS),
        lars(_lr * 16, _decay),
        method("byol", momentum=_momentum, hidden_dim=4096, output_dim=256),
        {"method/target_init": "own", "method/output_norm": False, "method/last_bias": False},
        heads(projector=("4096 bn", "256"), predictor=("4096 bn", "256")),
        differs=BYOL_PADDING,
    )
# SL byol.yaml, solo/methods/byol.py (nn.Linear with bias), initialize_momentum_params (a copy).
_add(
    "byol:cifar10",
    *(SOLO, SOLO_ASYMMETRIC, solo_lars(1.0, 1e-5)),
    method("byol", momentum=0.99, hidden_dim=4096, output_dim=256),
    {"method/target_init": "copy", "method/output_norm": False, "method/last_bias": True},
    heads(projector=("4096 bn", "256 bias"), predictor=("4096 bn", "256 bias")),
    differs=SOLO_DIFFERS,
)

# ----- CPC -----
# CP v1: grey crops of 256 of images of 300 pixels, 7x7 patches of 64 with stride 32, cropped to 60;
# third block of ResNet-v2-101 without BatchNorm; Adam 2e-4; 32 GPUs with 16 images. "Up to five
# rows": from 2 rows below, as in loeweX/Greedy_InfoMax (skip_step 1). Not stated, so ours are here:
# the mean and deviation of the images, the context network (v2's), the epochs (v2's), zero_gamma.
# CP v2: 260 of 300 pixels, 6x6 patches of 80 with stride 36; layer normalisation; Adam 4e-4, b1
# 0.8, norm up to 0.01, batch 512, 200 epochs; patches: colours 0.8, grey 0.25; pseudo-code:
# steps_to_ignore 2, steps_to_predict 3, target_dim 64, emb_scale 0.1, five blocks of 256 channels.
# ResNet-161: 46 blocks of 512 channels. Not stated: how often colours are dropped.
# RS README: --crop 30-2 --grid_size 5 --pred_steps 3 --epochs 500, WideResNet-28-2; v1 has --norm
# none and --pred_directions 1, v2 --norm layer and 4. argparser: Adam 2e-4, batch 16.
GREY = {"model/mean": (0.5,), "model/std": (0.25,)}
NO_COLOURS = {"patch_jitter": 0, "patch_grayscale": 0, "patch_color_drop": 0}
V2_COLOURS = {"patch_jitter": 0.8, "patch_grayscale": 0.25, "patch_color_drop": 0.5}
CPC_V1 = {"directions": 1, "first_step": 2, "target_dim": 0, "scale": 1} | NO_COLOURS


def cpc(name: str, norm: str, patch: int, stride: int, width: float = 1, **rest: Any) -> Values:
    """Returns the network's and the method's fields."""
    fields = {"name": name, "width": width, "norm": norm, "patch": patch, "patch_stride": stride}
    fields |= {"stem": "cifar" if patch < 32 else "imagenet", "zero_gamma": True}
    network = {f"model/{key}": value for key, value in fields.items()}
    return RESNET | network | method("cpc", context_dim=256, context_depth=5, **rest)


def cpc_run(size: int, full: int, batch: int, epochs: int, peak: float, **rest: Any) -> Values:
    """Returns the view, a random square of an image of `full` pixels, and Adam at one rate."""
    one = views(view(size, ((size / full) ** 2,) * 2) | {"crop_aspect": (1, 1)})
    optimizer = {"rule": "constant", "shape": "constant", "end": peak} | rest
    return one | train(batch, epochs) | adamw(peak, 0, 0.999, **optimizer)


WIDE = {"model/name": ("resnet18", "there is no WideResNet here")}
_add(
    "cpc_v1:imagenet",
    *(GREY, cpc_run(256, 300, 512, 200, 2e-4)),
    cpc("resnet101_stage3", "none", 64, 32, steps=5, patch_crop=4, **CPC_V1),
)
_add(
    "cpc_v1:cifar10",
    *(GREY, cpc_run(30, 32, 16, 500, 2e-4)),
    cpc("wideresnet-28-2", "none", 10, 5, steps=3, patch_crop=0, **CPC_V1),
    differs=WIDE,
)
_add(
    "cpc_v2:imagenet",
    *(IMAGENET, cpc_run(260, 300, 512, 200, 4e-4, momentum=0.8, clip_norm=0.01)),
    cpc("resnet161", "layer", 80, 36, width=2, directions=4, first_step=3, steps=1, target_dim=64,
        scale=0.1, patch_crop=0, **V2_COLOURS),
)  # fmt: skip
_add(
    "cpc_v2:cifar10",
    *(CIFAR, cpc_run(30, 32, 16, 500, 2e-4)),
    cpc("wideresnet-28-2", "layer", 10, 5, directions=4, first_step=2, steps=3, target_dim=0,
        scale=1, patch_crop=0, **V2_COLOURS),
    differs=WIDE,
)  # fmt: skip

# ----- DINO -----
# DI main_dino.py: defaults; README: 8 GPUs of 64 images, 100 epochs. lr 5e-4 per 256 images.
DINO = {
    "student_temperature": 0.1,
    "center_momentum": 0.9,
    "freeze_epochs": 1,
    "skip_frozen": True,  # cancel_gradients_last_layer sets gradients to None
    "hidden_dim": 2048,
    "bottleneck_dim": 256,
    "warmup_temperature": 0.04,
    "warmup_epochs": 0,
}
DINO_HEAD = heads(head=("2048 bias", "2048 bias", "256 bias"))  # use_bn_in_head False
_add(
    "dino:imagenet",
    *(IMAGENET, VIT, {"model/name": "vit_small", "model/positions": "learned"}, train(512, 100)),
    views(
        *byol_views((0.4, 1)),
        view(96, (0.05, 0.4), BYOL_JITTER, gray=0.2, blur=0.5) | {"views": 8},
    ),
    adamw(1e-3, 0.04, 0.999, warmup=10, end=1e-6, decay_end=0.4, clip_norm=3.0),
    method("dino", prototypes=65536, teacher_temperature=0.04, momentum=0.996, **DINO),
    DINO_HEAD,
    differs={
        "model/positions": ("sincos", "learned positions fit one size of views only"),
        "optim/end": ENDS_AT_0,
    },
)
# SL dino.yaml; solo/methods/dino.py: teacher_temperature 0.07, 0 epochs of warm-up.
_add(
    "dino:cifar10",
    *(SOLO, SOLO_ASYMMETRIC, solo_lars(0.3, 1e-6), DINO_HEAD),
    method("dino", prototypes=4096, teacher_temperature=0.07, momentum=0.9995, **DINO),
    differs=SOLO_DIFFERS,
)

# ----- Jigsaw -----
# JI: 8 GPUs of 32 images, lr 0.1 per 256, 5 epochs of warm-up from 0.025, drops at 30, 60, 90 and
# 100 of 105, decay not of BatchNorm; Resize 256, RandomCrop 255: nearly the largest square;
# mlp 2048-1000 with BatchNorm and ReLU, then 9000-2000; torchvision's ResNet-50.
_add(
    "jigsaw:imagenet",
    *(IMAGENET, RESNET50, {"model/zero_gamma": False}, train(256, 105)),
    views(view(255, (1, 1), gray=0.66, resize="bilinear") | {"crop_aspect": (1, 1)}),
    sgd(
        0.1,
        1e-4,
        warmup=5,
        start=0.025,
        end=1e-5,
        shape="step",
        decay_all=False,
        drop=0.1,
        drops=(30 / 105, 60 / 105, 90 / 105, 100 / 105),
    ),
    method("jigsaw", permutations=2000, tile_size=64, jitter=21, normalize_tiles=False),
    {"method/tile_dim": 1000, "method/hidden_dim": 0},
    heads(tile=("1000 bn",), classifier=("2000 bias",)),
    differs={"optim/start": STARTS_AT_0},
)

# ----- MAE -----
# MAE PRETRAIN.md: blr 1.5e-4 per 256, batch 4096, warm-up 40, decay 0.05 except for biases and
# norms; main_pretrain.py: betas 0.9, 0.95; bicubic. Paper, table 8 and section 4: 1600 epochs.
MAE = {"mask_ratio": 0.75, "normalize_pixels": True}
MAE_DECODER = {"decoder_dim": 512, "decoder_depth": 8, "decoder_heads": 16}
_add(
    "mae:imagenet",
    *(IMAGENET, VIT, {"model/name": "vit_base"}, train(4096, 1600), views(view(224, (0.2, 1)))),
    adamw(2.4e-3, 0.05, 0.95, warmup=40),
    method("mae", **MAE, **MAE_DECODER),
)
# SL mae.yaml (lr 2e-4 at batch 256), reconstruction.yaml; vit_small has 12 heads
# (solo/backbones/vit/vit_mae.py); torch.optim.AdamW decays every parameter.
_add(
    "mae:cifar10",
    *(CIFAR, VIT, {"model/name": "vit_small_moco", "model/patch_size": 4}, train(256, 1000)),
    views(view(32, (0.08, 1))),
    adamw(2e-4, 0.05, 0.95, warmup=10, start=3e-5, decay_all=True),
    method("mae", **MAE, **MAE_DECODER),
    differs=SOLO_DIFFERS,
)

# ----- MoCo v1 and v2 -----
# MO main_moco.py: defaults; README: 8 GPUs of 32 images, hence statistics of 32 images (64 rows of
# both views); torchvision's ResNet-50 with zero_init_residual False; fc has a bias.
MOCO_NETWORK = RESNET50 | {"model/zero_gamma": False, "model/bn_group": 64}
MOCO = {"momentum": 0.999, "queue_size": 65536, "output_dim": 128, "shuffle_groups": 8}
_add(
    "moco_v1:imagenet",
    *(IMAGENET, MOCO_NETWORK, train(256, 200)),
    pair(224, (0.2, 1), NPID_JITTER, gray=0.2, resize="bilinear"),
    sgd(0.03, 1e-4, end=0.0003, rule="constant", **STEPS),
    method("moco", temperature=0.07, head_depth=1, **MOCO) | heads(head=("128 bias",)),
)
_add(
    "moco_v2:imagenet",
    *(IMAGENET, MOCO_NETWORK, train(256, 200)),
    pair(224, (0.2, 1), WEAK, gray=0.2, blur=0.5, resize="bilinear"),
    sgd(0.03, 1e-4, rule="constant"),
    method("moco", temperature=0.2, head_depth=2, hidden_dim=0, **MOCO),
    heads(head=("2048 bias", "128 bias")),
)
# MO colab: lr 0.06 for batch 512, cosine without warm-up, wd 5e-4, moco_k 4096, moco_m 0.99,
# moco_t 0.1, bn_splits 8, RandomResizedCrop(32), linear head; asymmetric loss, 200 epochs.
_add(
    "moco_v1:cifar10",
    *(CIFAR_WITHIN, RESNET18, {"model/zero_gamma": False, "model/bn_group": 128}, train(512, 200)),
    pair(32, (0.08, 1), WEAK, gray=0.2, resize="bilinear"),
    sgd(0.06, 5e-4, rule="constant"),
    method("moco", temperature=0.1, momentum=0.99, queue_size=4096, head_depth=1, output_dim=128),
    {"method/shuffle_groups": 8} | heads(head=("128 bias",)),
)
# SL mocov2plus.yaml; solo/methods/mocov2plus.py: no BatchNorm in the head, nothing is permuted.
_add(
    "moco_v2:cifar10",
    *(SOLO, SOLO_WEAK, sgd(0.3, 1e-4, warmup=10, start=3e-5)),
    method("moco", temperature=0.2, momentum=0.99, queue_size=32768, head_depth=2, output_dim=256),
    {"method/hidden_dim": 2048, "method/shuffle_groups": 1},
    heads(head=("2048 bias", "256 bias")),
    differs=SOLO_DIFFERS,
)

# ----- MoCo v3 -----
# M3 CONFIG.md: --lr per 256 images, --crop-min=.2 for ResNet-50, --stop-grad-conv1 for ViT;
# main_moco.py: batch 4096, wd 1e-6, warm-up 10, zero_init_residual True, torch.optim.AdamW for ViT;
# moco/builder.py: heads without bias, predictor of ResNet without a last BatchNorm.
MOCO_V3_HEADS = heads(projector=("4096 bn", "256 plain"), predictor=("4096 bn", "256"))
MOCO_V3 = {"hidden_dim": 4096, "output_dim": 256, "last_bias": False}
MOCO_V3_RESNET = MOCO_V3 | {"head_depth": 2, "predictor_norm": False}
for _epochs, _lr, _decay, _momentum, _suffix in (
    (300, 0.3, 1e-6, 0.99, ""),
    (100, 0.6, 1e-6, 0.99, "_100"),
    (1000, 0.3, 1.5e-6, 0.996, "_1000"),
):
    _add(
        f"moco_v3:imagenet{_suffix}",
        *(IMAGENET, RESNET50, train(4096, _epochs)),
        views(*byol_views((0.2, 1), resize="bilinear")),
        lars(_lr * 16, _decay),
        method("moco_v3", temperature=1.0, momentum=_momentum, **MOCO_V3_RESNET) | MOCO_V3_HEADS,
    )
for _encoder, _suffix in (("vit_small_moco", "small"), ("vit_base", "base")):
    _add(
        f"moco_v3:imagenet_vit_{_suffix}",
        *(IMAGENET, VIT, {"model/name": _encoder}, train(4096, 300)),
        views(*byol_views((0.08, 1), resize="bilinear")),
        adamw(2.4e-3, 0.1, 0.999, warmup=40, decay_all=True, frozen=("encoder/patch_embed",)),
        method("moco_v3", temperature=0.2, momentum=0.99, head_depth=3, predictor_norm=True),
        {f"method/{k}": v for k, v in MOCO_V3.items()},
        heads(projector=("4096 bn", "4096 bn", "256 plain"), predictor=("4096 bn", "256 plain")),
    )
# SL mocov3.yaml; solo/methods/mocov3.py has the authors' heads.
_add(
    "moco_v3:cifar10",
    *(SOLO, SOLO_ASYMMETRIC, solo_lars(0.3, 1e-6), MOCO_V3_HEADS),
    method("moco_v3", temperature=0.2, momentum=0.99, **MOCO_V3_RESNET),
    differs=SOLO_DIFFERS,
)

# ----- NPID -----
# NP main.py: defaults, and drops at epochs 120 and 160; cifar.py: lr 0.03, nce_t 0.1, momentum 0.5,
# decay 5e-4, batch 128, drops at 120 and 160, no mirroring; README: --nce-k 0 (full softmax).
NPID = {"momentum": 0.5, "noise_samples": 4096, "proximal": 0, "output_dim": 128}
NPID_VIEW = {"gray": 0.2, "resize": "bilinear"}
_add(
    "npid:imagenet",
    *(IMAGENET, RESNET50, {"model/zero_gamma": False}, train(256, 200)),
    views(view(224, (0.2, 1), NPID_JITTER, **NPID_VIEW)),
    sgd(0.03, 1e-4, end=0.0003, rule="constant", **STEPS),
    method("npid", loss="nce", temperature=0.07, **NPID) | heads(head=("128 bias",)),
)
_add(
    "npid:cifar10",
    *(CIFAR_WITHIN, RESNET18, {"model/zero_gamma": False}, train(128, 200)),
    views(view(32, (0.2, 1), NPID_JITTER, flip=0, **NPID_VIEW)),
    sgd(0.03, 5e-4, end=0.0003, rule="constant", **STEPS),
    method("npid", loss="softmax", temperature=0.1, **NPID) | heads(head=("128 bias",)),
)

# ----- Relative position -----
# MM relative_loc: 8 GPUs of 64 images, SGD 0.2, decay 1e-4, of neck and head 5e-4, 5 epochs of
# warm-up from a tenth, drops at 30 and 50 of 70; Resize 292, RandomCrop 255, no mirroring; tiles of
# 64 pixels in cells of 85; RelativeLocNeck 4096 with BatchNorm, ReLU (and dropout), ClsHead 8.
_add(
    "relative_position:imagenet",
    *(IMAGENET, RESNET50, {"model/zero_gamma": False}, train(512, 70)),
    views(view(255, (0.57, 0.57), gray=0.66, flip=0, resize="bilinear") | {"crop_aspect": (1, 1)}),
    sgd(
        0.2,
        1e-4,
        warmup=5,
        start=0.02,
        end=0.002,
        shape="step",
        rule="constant",
        drop=0.1,
        drops=(30 / 70, 50 / 70),
        groups={"head": {"weight_decay": 5e-4}},
    ),
    method("relative_position", tile_size=64, jitter=21, colour="keep", downsample=0),
    {"method/hidden_dim": 4096} | heads(head=("4096 bn", "8 bias")),
    differs={"optim/start": STARTS_AT_0},
)

# ----- Rotation -----
# MM rotation_pred: 8 GPUs of 16 images in four rotations, SGD 0.2, decay 1e-4, 5 epochs of warm-up
# from a tenth, drops at 30 and 50 of 70; RandomResizedCrop 224 and RandomFlip; ClsHead 4.
_add(
    "rotation:imagenet",
    *(IMAGENET, RESNET50, {"model/zero_gamma": False}, train(128, 70)),
    views(view(224, (0.08, 1), resize="bilinear")),
    sgd(
        0.2,
        1e-4,
        warmup=5,
        start=0.02,
        end=0.002,
        shape="step",
        rule="constant",
        drop=0.1,
        drops=(30 / 70, 50 / 70),
    ),
    method("rotation", angles="quarter") | heads(head=("4 bias",)),
    differs={"optim/start": STARTS_AT_0},
)
# RN: batch 128 in four rotations, SGD 0.1 with Nesterov momentum, decay 5e-4, 0.02 from epoch 60,
# 0.004 from 120 and 0.0008 from 160 of 200; RandomCrop(32, padding=4): 28 of 32 pixels and more.
_add(
    "rotation:cifar10",
    *(CIFAR, RESNET18, {"model/zero_gamma": False, "model/name": "nin4"}, train(128, 200)),
    views(view(32, (0.76, 1)) | {"crop_aspect": (1, 1)}),
    sgd(
        0.1,
        5e-4,
        end=0.0008,
        shape="step",
        rule="constant",
        nesterov=True,
        drop=0.2,
        drops=(0.3, 0.6, 0.8),
    ),
    method("rotation", angles="quarter") | heads(head=("4 bias",)),
    differs={"model/name": ("resnet18", "the encoders of this project have no network in network")},
)

# ----- SimCLR -----
# SC paper, sections 2.2 and B.9: LARS 0.3 * batch / 256, decay 1e-6, batch 4096, T 0.1, 10 epochs
# of warm-up; objective.py: loss_a + loss_b, hence scale 2; model_util.py: two layers, the last one
# normalised without bias; resnet.py: zero-initialised scales, fixed padding. No mean, no std.
SIMCLR_HEAD = {"hidden_dim": 0, "output_dim": 128, "scale": 2}
# All but the first belong to other losses or to attacked views, and have no effect.
NT_XENT = {
    **{"loss": "nt_xent", "class_prior": 0.1, "concentration": 1, "attack_steps": 0},
    **{"attack_epsilon": 0.0314, "attack_step_size": 0.007, "attack_weight": 0.00390625},
}
SIMCLR_VIEWS = pair(224, (0.08, 1), STRONG, gray=0.2, blur=0.5, kernel=0.1)
SIMCLR_CIFAR_VIEWS = pair(32, (0.08, 1), WEAK, gray=0.2)  # color_jitter_strength 0.5, no blur
SIMCLR_PADDING = {"model/padding": "simclr"}
SIMCLR_LARS = {"lr_in_momentum": True}
_add(
    "simclr:imagenet",
    *(UNIT, RESNET50, SIMCLR_PADDING, train(4096, 1000), SIMCLR_VIEWS),
    lars(4.8, 1e-6, **SIMCLR_LARS),
    method("simclr", temperature=0.1, head_depth=2, **SIMCLR_HEAD, **NT_XENT),
    heads(head=("2048 bn", "128 scale")),
    differs={"model/padding": PADDING},
)
# SC README as published with the paper: batch 512, lr 1.0, decay 1e-6, T 0.5; run.py of that time:
# one hidden layer.
_add(
    "simclr:cifar10",
    *(UNIT, RESNET18, SIMCLR_PADDING, train(512, 1000), SIMCLR_CIFAR_VIEWS),
    lars(2.0, 1e-6, **SIMCLR_LARS),
    method("simclr", temperature=0.5, head_depth=2, **SIMCLR_HEAD, **NT_XENT),
    heads(head=("512 bn", "128 scale")),
    differs={"model/padding": PADDING},
)
# SC paper of v2 (arXiv 2006.10029), appendix B, recalled: 0.1 * sqrt(4096), decay 1e-4, 800 epochs,
# warm-up of 5 %, three layers, memory of 64K with momentum 0.999. The code has no memory.
MEMORY = {"memory_size": 65536, "memory_momentum": 0.999}
NO_MEMORY = {
    "method/memory_size": (0, "the authors' code, and the runs of their README, have none")
}
for _suffix, _network, _width in (
    ("", {}, 2048),
    ("_sk", {"model/name": "resnet152", "model/width": 3, "model/sk_ratio": 0.0625}, 6144),
):
    _add(
        f"simclr_v2:imagenet{_suffix}",
        *(UNIT, RESNET50, SIMCLR_PADDING, _network, train(4096, 800), SIMCLR_VIEWS),
        lars(6.4, 1e-4, warmup=40, rule="sqrt", **SIMCLR_LARS),
        method("simclr_v2", temperature=0.1, head_depth=3, **SIMCLR_HEAD, **MEMORY),
        heads(head=(f"{_width} bn", f"{_width} bn", "128 scale")),
        differs={"model/padding": PADDING} | NO_MEMORY,
    )
# SC README (of today): decay 1e-4; run.py: num_proj_layers 3.
_add(
    "simclr_v2:cifar10",
    *(UNIT, RESNET18, SIMCLR_PADDING, train(512, 1000), SIMCLR_CIFAR_VIEWS),
    lars(2.0, 1e-4, **SIMCLR_LARS),
    method("simclr_v2", temperature=0.5, head_depth=3, **SIMCLR_HEAD),
    method("simclr_v2", memory_size=0, memory_momentum=0.999),
    heads(head=("512 bn", "512 bn", "128 scale")),
    differs={"model/padding": PADDING},
)

# ----- SimSiam -----
# SS main_simsiam.py: lr 0.05 per 256, batch 512, --fix-pred-lr; builder.py: three layers, the last
# BatchNorm affine False, predictor 512 with a bias in its last layer, zero_init_residual True.
SIMSIAM = {"hidden_dim": 0, "bottleneck_dim": 512, "output_dim": 2048}
SIMSIAM_PREDICTOR = heads(predictor=("512 bn", "2048 bias"))
_add(
    "simsiam:imagenet",
    *(IMAGENET, RESNET50, train(512, 100), SIMSIAM_PREDICTOR),
    pair(224, (0.2, 1), WEAK, gray=0.2, blur=0.5, resize="bilinear"),
    sgd(0.1, 1e-4, groups={"predictor": {"schedule": "constant"}}),
    method("simsiam", head_depth=3, **SIMSIAM),
    heads(projector=("2048 bn", "2048 bn", "2048 plain")),
)
# SS paper, appendix D, recalled: base lr 0.03, 800 epochs, decay 5e-4, batch 512, no blur, two
# layers. Crop, jitter and residual blocks as on ImageNet. Mean and std are not named there: SL.
_add(
    "simsiam:cifar10",
    *(CIFAR, RESNET18, train(512, 800), SIMSIAM_PREDICTOR),
    pair(32, (0.2, 1), WEAK, gray=0.2, resize="bilinear"),
    sgd(0.06, 5e-4),
    method("simsiam", head_depth=2, **SIMSIAM) | heads(projector=("512 bn", "2048 plain")),
)

# ----- SwAV -----
# SW scripts/swav_800ep_pretrain.sh: base_lr 4.8, final_lr 0.0048, start_warmup 0.3, wd 1e-6, 313
# iterations frozen (1 epoch); main_swav.py: SGD in LARC (clip False) for every parameter;
# src/resnet50.py: heads with biases, zero_init_residual False; multicropdataset.py: bilinear,
# std 0.228 of red. BatchNorm: 8 GPUs of 64 images, both views, 1024 rows.
SWAV = {
    "prototypes": 3000,
    "temperature": 0.1,
    "epsilon": 0.05,
    "iterations": 3,
    "skip_frozen": True,  # p.grad = None
    "hidden_dim": 2048,
    "output_dim": 128,
}
SWAV_HEAD = heads(projector=("2048 bn", "128 bias"))
SWAV_NETWORK = RESNET50 | {"model/zero_gamma": False, "model/bn_group": 1024}
SWAV_COLOUR = {"jitter": STRONG, "gray": 0.2, "blur": 0.5, "resize": "bilinear"}
_add(
    "swav:imagenet",
    *(IMAGENET, {"model/std": (0.228, 0.224, 0.225)}, SWAV_NETWORK, train(4096, 800), SWAV_HEAD),
    views(
        view(224, (0.14, 1), **SWAV_COLOUR),
        view(224, (0.14, 1), **SWAV_COLOUR),
        view(96, (0.05, 0.14), **SWAV_COLOUR) | {"views": 6},
    ),
    lars(4.8, 1e-6, start=0.3, end=0.0048, decay_all=True, adapt_all=True),
    method("swav", freeze_epochs=1, queue_size=0, queue_epoch=15, **SWAV),
    differs={
        "model/std": (IMAGENET["model/std"], "0.228 looks like a slip; other authors have 0.229"),
        "model/bn_group": (0, "groups are for speed (their README); ours need none"),
        "optim/start": STARTS_AT_0,
        "optim/end": ENDS_AT_0,
    },
)
# SL swav.yaml; solo/methods/swav.py: unit-length prototypes.
_add(
    "swav:cifar10",
    *(SOLO, SOLO_SYMMETRIC, solo_lars(0.6, 1e-6), SWAV_HEAD),
    method("swav", freeze_epochs=2, queue_size=3840, queue_epoch=50, **SWAV),
    differs=SOLO_DIFFERS,
)

# ----- VICReg -----
# VI main_vicreg.py: base_lr 0.2 per 256, wd 1e-6, end_lr 0.001 of the peak, mlp 8192-8192-8192 with
# a last layer without bias; README: batch 2048, 1000 epochs.
VICREG = {"sim": 25, "cov": 1, "apart": True, "last_bias": False}
_add(
    "vicreg:imagenet",
    *(IMAGENET, RESNET50, train(2048, 1000), views(*byol_views((0.08, 1)))),
    lars(1.6, 1e-6, end=1.6e-3),
    method("vicreg", std=25, hidden_dim=8192, output_dim=8192, **VICREG),
    heads(head=("8192 bn", "8192 bn", "8192")),
    differs={"optim/end": ENDS_AT_0},
)
# SL vicreg.yaml; solo/losses/vicreg.py adds the variance terms of both views, hence twice 25. Their
# last layer has a bias, without effect: variance, covariance and the difference of views cancel it.
_add(
    "vicreg:cifar10",
    *(SOLO, pair(32, (0.2, 1), BYOL_JITTER, gray=0.2, solarize=0.1), solo_lars(0.3, 1e-4)),
    method("vicreg", std=50, hidden_dim=2048, output_dim=2048, **VICREG),
    heads(head=("2048 bn", "2048 bn", "2048")),
    differs=SOLO_DIFFERS,
)
