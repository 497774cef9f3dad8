"""Hand-made programs for tests that do not need a compiler."""

from ssl_jax.plan.chips import Chip
from ssl_jax.plan.program import Collective, Memory, Program
from ssl_jax.plan.topologies import Topology

V5E = Chip(
    name="v5e",
    kind="tpu",
    hbm_bytes=16 * 2**30,
    hbm_bandwidth=810e9,
    flops=197e12,
    link_bandwidth=45e9,
    axes=2,
    dcn_bandwidth=25e9,
    chips_per_host=4,
    devices_per_chip=1,
)
H100 = V5E._replace(
    **{"name": "h100", "kind": "gpu", "hbm_bytes": 80e9, "hbm_bandwidth": 3.35e12, "flops": 990e12},
    **{"link_bandwidth": 450e9, "axes": 1, "dcn_bandwidth": 400e9, "chips_per_host": 8},
)


def make_topology(chip=V5E, shape=(16, 16), slices=1, wraps=(True, True)):
    """Returns a topology; by default a TPU pod of 256 chips."""
    chips = slices
    for size in shape:
        chips *= size
    return Topology(
        name="v5e:" + "x".join(map(str, shape)),
        chip=chip,
        shape=shape,
        slices=slices,
        devices=chips * chip.devices_per_chip,
        hosts=chips // chip.chips_per_host,
        wraps=wraps,
    )


def make_collective(kind="all-reduce", size=112_000_000, **fields):
    """Returns one collective; by default over all 256 devices."""
    default = {
        **{"count": 1, "group": 256, "axis": "data,fsdp"},
        **{"network": "ici", "source": "gradient"},
    }
    return Collective(kind=kind, bytes=size, **(default | fields))


def make_program(topology=None, **fields):
    """Returns a program with about the numbers of SimCLR's ResNet-50 step at batch 4,096."""
    memory = Memory(
        parameters=112 * 10**6,
        optimizer=112 * 10**6,
        extra=10**6,
        batch=10**7,
        activations=11 * 10**8,
        loss=10**6,
        padding=0,
        total=1336 * 10**6,
        limit=16 * 2**30,
    )
    default = {
        "topology": topology or make_topology(),
        "global_batch": 4096,
        "memory": memory,
        "flops": 7.88e11,
        "even_flops": 7.88e11,
        "bytes": 1.62e10,
        "collectives": (
            make_collective(),
            make_collective(size=4096, count=100, source="encoder/norm"),
            make_collective("all-gather", 2 * 2**20, source="nt_xent"),
        ),
        "replicated": (),
        "compile_seconds": 100.0,
        "compiled_for": "Compiled by libtpu for v5e:16x16.",
    }
    return Program(**(default | fields))
