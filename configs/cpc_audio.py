"""CPC on sound (van den Oord et al. 2018, arXiv 1807.03748, section 3.1).

    python -m ssl_jax.train --config=configs/cpc_audio.py:VARIANT --workdir=runs/NAME

:librispeech   The paper's recipe: windows of 20480 samples at 16 kHz, five convolutions of 512
               channels, a GRU of width 256, 12 steps, batch 64, Adam at 2e-4, 300,000 updates. Pass
               --config.data.dir=LibriSpeech, the folder that holds train-clean-100. Expected:
               97.4 % of single frames by speaker (paper, table 2). Not run here yet.
:spoken_digit  Small encoder for 2 CPU cores, at 8 kHz. Pass --config.data.dir=DIR, the folder of
               the Free Spoken Digit Dataset's files, such as 7_jackson_32.wav. Labels are digits;
               `ssl-jax evaluate --data.label=speaker` classifies speakers. docs/audio.md has
               results.
:folder        Your own sounds: pass --config.data.dir=SOUNDS. Class folders are the labels, or
               --config.data.pattern names them. Batch and epochs follow from the number of files.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common
from ssl_jax.field import AUTO

METHOD = {
    "name": "cpc_audio",
    "steps": 12,  # frames ahead that a context predicts
    "negatives": "batch",  # batch | group | sequence
    "contexts": 0,  # drawn of each window; 0: all
    "scale": 1.0,  # of the scores
}


def get_config(arg: str = "librispeech") -> ConfigDict:
    """Returns a variant by its name."""
    return common.select(arg, METHOD, librispeech, spoken_digit, folder)


def librispeech(config: ConfigDict) -> None:
    """LibriSpeech's 100 hours of 251 speakers, by section 3.1.

    The paper trains on 8 GPUs with 8 windows each. Negatives are those of the whole batch of 64
    here; the paper draws them from the minibatch. Labels are speakers; every tenth recording is
    held out for evaluation, because the authors' lists are not part of the data.
    """
    common.audio(config)
    config.data.update(split="train-clean-100", eval_split="", holdout=0.1, group="folder")
    config.augment.update(window=20480, max_seconds=20.0)
    config.model.update(strides=(5, 4, 2, 2, 2), kernels=(10, 8, 4, 4, 4), channels=512)
    config.model.update(context=256, norm="none")
    config.optim.update(
        name="adamw", lr=2e-4, lr_rule="constant", schedule="constant", warmup_epochs=0.0,
        weight_decay=0.0, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.update(batch_size=64, steps=300_000, log_every=50, checkpoint_every=2500)


def spoken_digit(config: ConfigDict) -> None:
    """Six speakers who say the ten digits; chosen in this project."""
    common.spoken_digit(config)
    config.augment.update(window=3200)
    config.method.contexts = 8
    config.optim.update(
        name="adamw", lr=1e-3, lr_rule="constant", schedule="cosine", warmup_epochs=1.0,
        weight_decay=0.0, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.update(batch_size=64, steps=1500, log_every=50, checkpoint_every=250)


def folder(config: ConfigDict) -> None:
    """The paper's encoder of half the width on a folder of your own sounds."""
    common.audio(config)
    config.augment.update(window=20480)
    config.model.update(channels=256, norm="channel")
    config.optim.update(
        name="adamw", lr=2e-4, lr_rule="constant", schedule="cosine", warmup_epochs=AUTO,
        weight_decay=0.0, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.update(batch_size=AUTO, epochs=float(AUTO), log_every=10, checkpoint_every=100)
    config.eval.update(labels_per_class=(AUTO,), draws=5, knn_k=AUTO, batch_size=32)
