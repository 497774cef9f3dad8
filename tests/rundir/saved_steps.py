"""Small states, folders of checkpoints made from them, and shorthand to restore them."""

import hashlib
import json
import os
import subprocess
import sys

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.errors import BAD_CHECKPOINT, Fault
from ssl_jax.optim import optimizers
from ssl_jax.rundir.checkpoint import Checkpoints

META = {"images": 640, "note": "ünï", "spike": [0.1, None]}


class State(flax.struct.PyTreeNode):
    step: jax.Array
    params: dict
    opt_state: tuple


def make_state(value, *, name="lars"):
    """Returns a state that depends on `value`, with the optimizer `name`."""
    params = {
        "kernel": jnp.arange(24.0).reshape(8, 3) / 7 + value,
        "half": jnp.arange(16, dtype=jnp.bfloat16).reshape(8, 2) / 3 + value,
        "bias": jnp.full((8,), value, jnp.float32),
        "batch_stats": {},
        "odd/name.with [marks]": jnp.float32(np.nan),
    }
    tx, _ = optimizers.make(
        name, lr=0.1, lr_rule="constant", batch_size=8, warmup_steps=2, total_steps=9,
        weight_decay=0.1,
    )  # fmt: skip
    return State(jnp.int32(value), params, tx.init(params))


def abstract(state, sharding=None):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), state
    )


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def fill(directory, steps, **options):
    """Saves `make_state(step)` at each of the steps."""
    options = {"config_hash": "abc", "keep": 3} | options
    with Checkpoints(directory, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), META)


def restore(directory, like=None, *, config_hash="abc", **options):
    """Restores the newest intact step into a state like `like`, default that of `fill`."""
    with Checkpoints(directory, config_hash=config_hash) as checkpoints:
        return checkpoints.restore_latest(abstract(like or make_state(0)), **options)


def refusal(*args, code=BAD_CHECKPOINT, **options):
    """Returns the message of the Fault that `restore` must raise."""
    with pytest.raises(Fault) as caught:
        restore(*args, **options)
    assert caught.value.code == code
    return str(caught.value)


def data_files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def edit_manifest(folder, **changes):
    """Changes a manifest and seals it again, as another program would write it."""
    content = json.loads((folder / "MANIFEST.json").read_text()) | changes
    del content["seal"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["seal"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "MANIFEST.json").write_text(json.dumps(content))


def run_python(script, *args, **env):
    """Runs an indented script in a process of its own."""
    lines = script.split("\n")
    indent = len(lines[1]) - len(lines[1].lstrip())
    return subprocess.run(
        [sys.executable, "-c", "\n".join(line[indent:] for line in lines), *map(str, args)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
