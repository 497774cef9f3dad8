"""The mesh, the sharding of arrays, and CPU cores as devices."""

import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ssl_jax import parallel
from ssl_jax.errors import Fault
from ssl_jax.parallel import mesh as meshes

CODE = """
import os
os.sched_getaffinity = lambda _: set(range({cores}))
import jax
from ssl_jax import parallel
parallel.use_cpu_cores_as_devices({batch})
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
    ("batch", "options", "want"),
    [
        (128, {}, 4),
        (96, {}, 3),  # 32 rows per core
        (130, {}, 2),  # no other number of cores divides it
        (127, {}, 1),
        (40, {}, 1),
        (256, {"microbatch": 64}, 2),
        # On two devices, each would hold half a group of a micro-batch; on one device it fits.
        (256, {"microbatch": 64, "bn_group": 128, "views": 2}, 1),
    ],
)
def test_the_largest_number_of_cores_that_divides_the_batch_is_used(
    batch, options, want, monkeypatch
):
    chosen = {"jax_num_cpu_devices": 1}
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr("ssl_jax.parallel.mesh.usable_cores", lambda: 4)
    monkeypatch.setattr(jax.config, "update", chosen.__setitem__)
    parallel.use_cpu_cores_as_devices(batch, **options)
    assert chosen == {"jax_num_cpu_devices": want}


def test_cores_become_devices():
    assert _devices(128) == 4


@pytest.mark.parametrize(
    "env",
    [
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
        {"JAX_NUM_CPU_DEVICES": "3"},
    ],
)
def test_the_number_of_devices_set_by_the_user_stays(env):
    assert _devices(128, **env) == 3


def fake_device(process, number, slice_index=0):
    return types.SimpleNamespace(process_index=process, id=number, slice_index=slice_index)


def test_the_devices_of_a_process_and_of_a_slice_are_adjacent():
    # Like TPU ids: they run along the rows of a torus, and each host holds a square of it.
    devices = [fake_device((i // 8) * 2 + i % 4 // 2, i) for i in range(16)]
    devices += [fake_device(4, 99, slice_index=1), fake_device(0, 98, slice_index=1)]
    keys = [meshes._sort_key(device)[:2] for device in sorted(devices, key=meshes._sort_key)]
    assert keys == [(0, 0)] * 4 + [(0, 1)] * 4 + [(0, 2)] * 4 + [(0, 3)] * 4 + [(1, 0), (1, 4)]


def test_rows_are_sharded_over_both_axes():
    mesh = parallel.make_mesh(jax.devices()[:8], fsdp=4)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4}
    x = parallel.to_global({"x": np.arange(16)}, mesh)["x"]
    shares = [np.asarray(shard.data).tolist() for shard in x.addressable_shards]
    assert shares == [[2 * i, 2 * i + 1] for i in range(8)]


def test_fsdp_must_divide_the_devices():
    with pytest.raises(Fault, match=r"parallel.fsdp=3 does not divide the 8 devices"):
        parallel.make_mesh(jax.devices()[:8], fsdp=3)


def test_parameters_are_sharded_along_their_longest_axis():
    mesh = parallel.make_mesh(jax.devices()[:8], fsdp=4)
    shapes = {
        "kernel": (3, 3, 256, 64),  # the longest axis that 4 divides
        "prime": (8, 4099),  # the longest axis is prime
        "small": (64,),
        "none": (4099, 3),
    }
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    specs = {name: s.spec for name, s in parallel.shardings("parameters", tree, mesh).items()}
    assert specs == {
        "kernel": PartitionSpec(None, None, "fsdp"),
        "prime": PartitionSpec("fsdp"),
        "small": PartitionSpec(),
        "none": PartitionSpec(),
    }
