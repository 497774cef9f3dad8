"""SimCLR (Chen et al. 2020, arXiv 2002.05709).

    python -m ssl_jax.train --config=configs/simclr.py:VARIANT --workdir=runs/NAME

:digits       scikit-learn's digits, which need no files. Expected: 95.6 % linear from 10 labels
              per class, 98.4 % kNN. Takes about 2.5 minutes on 2 CPU cores.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Expected: 51.3 % linear, 52.4 % kNN. Takes
              about 13 minutes on 2 CPU cores.
:cifar10      ResNet-18, batch 512, 1000 epochs, by google-research/simclr's README as published
              with the paper (the later one is configs/simclr_v2.py:cifar10). Expected: about 91 %
              linear (there). Not run here yet. Takes hours on one recent GPU.
:imagenet     ResNet-50, batch 4096, 1000 epochs, by the paper. Expected: 69.3 % linear top-1
              (paper, table 6), 64.6 % after 100 epochs (table B.1). Not run here yet. The paper
              reports about 1.5 h for 100 epochs on 128 TPU v3 cores.
:spoken_digit Sound instead of images, for 2 CPU cores. Pass --config.data.dir=DIR, the folder of
              the Free Spoken Digit Dataset's files. docs/audio.md has results.
:cifar10_decoupled
              Decoupled loss, ResNet-50, batch 128, 100 epochs, by a reimplementation that reports
              85.6 % linear. Not run here yet.
:cifar10_debiased
              Debiased loss, ResNet-50, batch 256, 400 epochs, by the authors' code, which reports
              84.3 % linear on STL-10 and nothing on CIFAR-10. Not run here yet.
:cifar10_hard_negatives
              Hard negatives, ResNet-50, batch 256, 400 epochs, by the authors' code, which reports
              87.4 % linear on STL-10 and nothing on CIFAR-10. Not run here yet.
:cifar10_adversarial
              Adversarial training without labels (RoCL), ResNet-18, batch 512, 1000 epochs, by the
              authors' code, which reports 83.7 % linear, 40.3 % under attack. Not run here yet.
:cifar10_cpu_adversarial
              The same with the small encoder of cifar10_cpu and 3 steps of ascent.

"VARIANT,augment=moco_v2" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "simclr",
    "temperature": 0.1,
    "head_depth": 2,  # layers of the projection head
    "hidden_dim": 0,  # 0: the encoder's width, 2048 for ResNet-50
    "output_dim": 128,
    "scale": 1.0,  # of the loss: see imagenet
    "loss": "nt_xent",  # nt_xent | decoupled | debiased | hard_negatives
    "class_prior": 0.1,  # of debiased and hard_negatives
    "concentration": 1.0,  # of hard_negatives
    "temperature_schedule": "constant",  # constant | cosine | log
    "temperature_end": 0.1,  # of the schedule "cosine"
    "temperature_periods": 0.5,  # of "cosine": 0.5 falls once from start to end
    "head_dropout": 0.0,
    "head_penalty": "none",  # none | l2 | smooth_l1
    "head_penalty_weight": 1e-4,
    "attack_steps": 0,  # of gradient ascent on a third view; 0: no third view
    "attack_epsilon": 0.0314,  # largest change of a pixel in [0, 1]: 8 / 255
    "attack_step_size": 0.007,
    "attack_weight": 0.00390625,  # 1 / 256; of the contrast between attacked and second view alone
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "cifar10", or with other views "imagenet,augment=moco_v2"."""
    variants = (digits, cifar10, cifar10_cpu, folder, imagenet, spoken_digit)
    losses = (cifar10_decoupled, cifar10_debiased, cifar10_hard_negatives)
    adversarial = (cifar10_adversarial, cifar10_cpu_adversarial)
    return common.select(arg, METHOD, *variants, *losses, *adversarial)


def digits(config: ConfigDict) -> None:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels; `make demo` runs this variant."""
    common.set_views(config, "digits", size=12, crop_area=(0.35, 1.0), crop_aspect=(0.6, 1.6667))
    config.data.source = "digits"
    config.model.update(name="resnet8", width=0.5, stem="cifar", zero_gamma=False)
    config.method.update(temperature=0.5, hidden_dim=256)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=2.0,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.update(batch_size=128, epochs=36.0, log_every=10, checkpoint_every=50)
    config.eval.update(labels_per_class=(10,), draws=10, knn_k=20)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by the authors' README: LARS at 1.0 * batch / 256, decay 1e-6, temperature 0.5."""
    common.cifar10(config)
    common.set_views(config, "simclr_cifar", size=32)
    config.model.update(name="resnet18", stem="cifar", zero_gamma=True)
    config.method.update(temperature=0.5, scale=2.0)
    config.optim.update(
        name="lars", lr=1.0, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-6, momentum=0.9, lr_in_momentum=True,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=1000.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.method.update(temperature=0.2, hidden_dim=256)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def spoken_digit(config: ConfigDict) -> None:
    """Sound: two random windows of spoken digits, and the small encoder of `cpc_audio`."""
    common.spoken_digit_pairs(config)
    config.method.update(temperature=0.2, hidden_dim=128, output_dim=64)


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images."""
    common.folder(config)
    config.method.update(temperature=0.2)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by section 2.2 and appendix B.9: LARS at 0.3 * batch / 256, batch 4096.

    The authors' code (tf2/objective.py) adds the losses of both views, which is twice our mean.
    """
    common.imagenet(config)
    common.set_views(config, "simclr_imagenet", size=224)
    config.model.update(name="resnet50", zero_gamma=True)
    config.method.scale = 2.0
    config.optim.update(
        name="lars", lr=0.3, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-6, momentum=0.9, lr_in_momentum=True,
    )  # fmt: skip
    config.train.update(batch_size=4096, epochs=1000.0)


def cifar10_decoupled(config: ConfigDict) -> None:
    """Decoupled loss (Yeh et al. 2021, arXiv 2110.06848, equation 6), on CIFAR-10.

    Every number is from a reimplementation, github.com/raminnakhli/Decoupled-Contrastive-Learning:
    temperature 0.1, batch 128 and 100 epochs from run_simclr.sh; views without blur from
    experiment/simclr/utils.py; encoder, head and optimizer (`_adam_resnet50`) from main.py and
    model.py beside it. We know of no code of the authors. The README of the reimplementation
    reports 85.63 % linear, and 83.09 % with NT-Xent. It says ResNet-18, but the code has ResNet-50.
    The classifier trains on augmented images, and its best epoch is chosen by its test accuracy.

    Differs: see `_adam_resnet50`. That code minimises the sum over both views instead of the mean;
    Adam's update does not depend on this factor.
    """
    _adam_resnet50(config, blur=0.0)
    config.method.update(loss="decoupled", temperature=0.1)
    config.train.update(batch_size=128, epochs=100.0)


def cifar10_debiased(config: ConfigDict) -> None:
    """Debiased loss (Chuang et al. 2020, arXiv 2007.00224, equations 7 and 8, M = 1), on CIFAR-10.

    Every number is from the authors' code for STL-10 at 32 pixels, github.com/chingyaoc/DCL:
    temperature 0.5, class prior (tau_plus) 0.1 and batch 256 from main.py; views with blur from
    utils.py; 400 epochs from the README, which evaluates model_400.pth (main.py's default is 500).
    The README reports STL-10: 84.26 % linear, 80.15 % with class prior 0.

    Differs: the dataset, and see `_adam_resnet50`.
    """
    _adam_resnet50(config, blur=0.5)
    config.method.update(loss="debiased", temperature=0.5, class_prior=0.1)
    config.train.update(batch_size=256, epochs=400.0)


def cifar10_hard_negatives(config: ConfigDict) -> None:
    """Hard negatives (Robinson et al. 2021, arXiv 2010.04592, section 3), on CIFAR-10.

    Every number is from the authors' code, github.com/joshr17/HCL: temperature 0.5, class prior
    (tau_plus) 0.1, concentration (beta) 1, batch 256 and 400 epochs from image/main.py, which also
    reads CIFAR-10; views with blur from image/utils.py; encoder and head from chingyaoc/DCL, on
    which it builds. The README in image/ reports STL-10: 87.44 % linear, 86.38 % with concentration
    0.5, 87.09 % with 2.

    Differs: see `_adam_resnet50`.
    """
    _adam_resnet50(config, blur=0.5)
    config.method.update(loss="hard_negatives", temperature=0.5, class_prior=0.1, concentration=1.0)
    config.train.update(batch_size=256, epochs=400.0)


def cifar10_adversarial(config: ConfigDict) -> None:
    """RoCL (Kim et al. 2020, arXiv 2006.07589), on CIFAR-10.

    Every number is from the authors' code, github.com/Kim-Minseon/RoCL: 7 steps of 0.007 within
    0.0314 (8/255), temperature 0.5, 1/256 as the weight of the regulariser, head 2048-128,
    1000 epochs, decay 1e-6 and rate 0.1 * 15 after 10 epochs of warm-up from argument.py; batch 256
    on each of 2 GPUs from the README; LARS with trust coefficient 0.001, rate after the momentum,
    and all parameters adapted and decayed from rocl_train.py; views without blur from
    data_loader.py. The README reports 83.71 % linear, and 40.27 % under an attack of 20 steps.

    Differs: there, the head has biases and no BatchNorm, the attack compares the 256 images of one
    GPU, and the additional contrast has a forward and BatchNorm statistics of its own. The gradient
    flows through one side of each similarity there, through both here. The warm-up starts at 0.1
    there, at 0 here. Colours are changed before the crop there, and by torchvision's operations
    (docs/methods.md).
    """
    common.cifar10(config)
    common.set_views(config, "simclr_cifar", size=32, interpolation="bilinear")
    config.model.update(name="resnet18", stem="cifar", zero_gamma=False)
    config.method.update(temperature=0.5, hidden_dim=2048, attack_steps=7)
    config.optim.update(
        name="lars", lr=1.5, lr_rule="constant", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-6, momentum=0.9, lr_in_momentum=False, decay_all=True, adapt_all=True,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=1000.0)


def cifar10_cpu_adversarial(config: ConfigDict) -> None:
    """Trains the small encoder with 3 steps of ascent, which reach the limit as 7 smaller ones."""
    cifar10_cpu(config)
    config.method.update(attack_steps=3, attack_step_size=4 / 255)


def _adam_resnet50(config: ConfigDict, *, blur: float) -> None:
    """Sets what the code of the three losses shares; all of it builds on leftthomas/SimCLR.

    Views: crops of 8 % to 100 %, flip 0.5, jitter 0.4, 0.4, 0.4, 0.1 with probability 0.8, grey
    0.2, standardised by CIFAR-10's statistics (utils.py); blur has 3 pixels and sigma 0.1 to 2.
    ResNet-50 with a 3x3 stem and without max-pooling; head 2048-512-128 (model.py). Adam with rate
    1e-3, no warm-up or schedule, decay 1e-6 (main.py).

    Differs from that code: Adam's decay is part of the gradient there, and applies to all
    parameters; AdamW's is apart and leaves out biases and normalisation (at 1e-6, it hardly acts).
    The two views are normalised together here, apart there. The head ends in a normalisation here,
    in a bias there, and has other initial weights. Colour operations are SimCLR's, not
    torchvision's (docs/methods.md).
    """
    common.cifar10(config)
    common.standardise(config, "cifar10_within")
    # torchvision's crop is bilinear. The code blurs 3 pixels: 0.1 of 32.
    common.set_views(config, "simclr_cifar", size=32, blur=blur, interpolation="bilinear")
    config.model.update(name="resnet50", stem="cifar", zero_gamma=False)
    config.method.update(hidden_dim=512, output_dim=128)
    config.optim.update(
        name="adamw", lr=1e-3, lr_rule="constant", schedule="constant", warmup_epochs=0.0,
        weight_decay=1e-6, momentum=0.9, b2=0.999,
    )  # fmt: skip
