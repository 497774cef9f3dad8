"""Programs made by hand, for what does not need a compiler."""

from ssl_jax.plan.program import Chip, Collective, Memory, Program, Topology

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


def topology(chip=V5E, shape=(16, 16), slices=1, wraps=(True, True)):
    """A TPU topology."""
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


def collective(kind="all-reduce", size=112_000_000, **fields):
    """One collective over all 256 devices."""
    known = {"count": 1, "group": 256, "axis": "data,fsdp", "network": "ici", "source": "gradient"}
    return Collective(kind=kind, bytes=size, **(known | fields))


def program(on=None, **fields):
    """SimCLR's ResNet-50 step at batch 4,096, about."""
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
    on = on or topology()
    known = {
        "topology": on,
        "global_batch": 4096,
        "memory": memory,
        "flops": 7.88e11,
        "even_flops": 7.88e11,
        "bytes": 1.62e10,
        "collectives": (
            collective(),
            collective(size=4096, count=100, source="encoder/norm"),
            collective("all-gather", 2 * 2**20, source="nt_xent"),
        ),
        "replicated": (),
        "compile_seconds": 100.0,
        "compiled_for": "Compiled by libtpu for v5e:16x16.",
    }
    return Program(**(known | fields))
