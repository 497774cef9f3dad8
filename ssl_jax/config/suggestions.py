"""Suggestions for misspelt names of config fields, by meaning and by letters."""

import difflib
from collections.abc import Iterable, Sequence

# Names that other programs give to fields, by the field's name here.
_OTHER_NAMES = {
    "augment.crop_area": "crop_scale scale min_scale random_resized_crop",
    "augment.size": "image_size img_size crop_size input_size resolution",
    "data.dir": "data_dir data_path data_root root path folder image_dir",
    "data.source": "dataset data dataset_name",
    "data.split": "train_split subset",
    "data.eval_split": "test_split val_split eval_set",
    "eval.protocols": "protocol evaluations evals",
    "method.head_depth": "proj_layers head_layers num_layers",
    "method.hidden_dim": "proj_hidden_dim head_dim",
    "method.momentum": "ema ema_decay target_momentum moving_average",
    "method.name": "algorithm algo ssl_method",
    "method.output_dim": "dim embedding_dim feature_dim proj_dim",
    "method.queue_size": "queue queue_len moco_k",
    "method.temperature": "tau temp t softmax_temperature",
    "model.dtype": "precision amp fp16 bf16 half mixed_precision",
    "model.init": "pretrained weights checkpoint init_from",
    "model.name": "arch architecture backbone encoder model network net",
    "optim.clip_norm": "clip_grad grad_clip gradient_clip max_grad_norm clip",
    "optim.lr": "learning_rate base_lr learningrate rate eta blr",
    "optim.lr_rule": "lr_scaling scale_lr",
    "optim.name": "optimizer optimiser opt",
    "optim.schedule": "scheduler lr_schedule lr_scheduler lr_policy",
    "optim.warmup_epochs": "warmup warmup_steps warm_up num_warmup_epochs",
    "optim.weight_decay": "wd decay l2 weightdecay",
    "parallel.fsdp": "shard zero",
    "train.batch_size": "batch bs batchsize global_batch global_batch_size",
    "train.checkpoint_every": "save_every save_freq checkpoint_freq checkpoint_interval",
    "train.epochs": "epoch num_epochs max_epochs n_epochs train_epochs",
    "train.log_every": "log_freq log_interval print_freq log_steps",
    "train.microbatch": "accumulation accum grad_accum accum_iter gradient_accumulation_steps",
    "train.seed": "random_seed rng rng_seed random_state",
    "train.steps": "step num_steps max_steps iterations iters num_iterations",
}
_FIELDS = {other: field for field, others in _OTHER_NAMES.items() for other in others.split()}


def suggest(name: str, known: Sequence[str]) -> str:
    """Returns "did you mean 'optim.lr'?" for a name that is not a field.

    Args:
      name: misspelt name, with or without its section: "lr", "optim.learning_rate".
      known: names of all fields, such as "optim.lr".
    """
    if found := synonyms(name, known) or similar(name, known):
        return f"did you mean {' or '.join(map(repr, found))}?"
    section = [field for field in known if field.startswith(name.partition(".")[0] + ".")]
    choices = section or sorted({field.partition(".")[0] for field in known})
    return f"choose from: {', '.join(choices)}"


def synonyms(name: str, known: Sequence[str]) -> list[str]:
    """Returns the fields that are `name` in another section or in other programs."""
    return _by_last_part(name, known) or _by_meaning(name, known)


def _by_last_part(name: str, known: Sequence[str]) -> list[str]:
    """Returns the fields that are `name` in another section."""
    same = [field for field in known if _last(field) == _last(name)]
    return sorted(same, key=lambda field: field.startswith("eval."))  # rarely the one that is meant


def _by_meaning(name: str, known: Sequence[str]) -> list[str]:
    field = _FIELDS.get(_last(name).replace("-", "_").lower(), "")
    return [field] if field in known else []


def similar(name: str, known: Sequence[str]) -> list[str]:
    """Returns the field with the most similar letters, if possible in the section of `name`."""
    section, dot, _ = name.rpartition(".")
    own = [field for field in known if dot and field.startswith(f"{section}.")]
    whole = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return _similar(name, own) or whole or _similar(name, [*known, *_FIELDS], known)


def _similar(name: str, words: Iterable[str], known: Sequence[str] = ()) -> list[str]:
    by_last = {_last(word): word for word in reversed(list(words))}
    match = difflib.get_close_matches(_last(name), by_last, n=1, cutoff=0.75)
    if not match:
        return []
    field = _FIELDS.get(by_last[match[0]], by_last[match[0]])
    return [field] if not known or field in known else []


def _last(name: str) -> str:
    return name.rpartition(".")[2]
