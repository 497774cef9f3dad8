"""How a CPU's cores become devices; what is sharded how is tested where it is used."""

import os
import subprocess
import sys

import jax
import pytest

from ssl_jax import parallel

CODE = """
import os
os.sched_getaffinity = lambda _: set(range({cores}))
import jax
from ssl_jax import parallel
parallel.use_cores({batch})
print(jax.device_count())
"""


def _devices(batch, cores=4, **env):
    plain = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    code = CODE.format(batch=batch, cores=cores)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=plain | {"JAX_PLATFORMS": "cpu"} | env,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize(
    ("batch", "division", "want"),
    [
        (128, {}, 4),
        (96, {}, 3),  # 32 rows a core
        (130, {}, 2),  # no other number of cores divides it
        (127, {}, 1),
        (40, {}, 1),
        (256, {"microbatch": 64}, 2),
        # On two devices each would hold half a group of a micro-batch: one device can do it.
        (256, {"microbatch": 64, "bn_group": 128, "views": 2}, 1),
    ],
)
def test_cores_that_divide_the_batch_are_chosen(batch, division, want, monkeypatch):
    chosen = {"jax_num_cpu_devices": 1}
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr("ssl_jax.parallel.mesh._cores", lambda: 4)
    monkeypatch.setattr(jax.config, "update", chosen.__setitem__)
    parallel.use_cores(batch, **division)
    assert chosen == {"jax_num_cpu_devices": want}


def test_chosen_cores_are_devices():
    assert _devices(128) == 4


@pytest.mark.parametrize(
    "env",
    [
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
        {"JAX_NUM_CPU_DEVICES": "3"},
    ],
)
def test_what_the_user_asked_for_stays(env):
    assert _devices(128, **env) == 3
