"""Seconds of collectives, against numbers worked by hand."""

import math

import pytest
from programs import H100, V5E, make_collective, make_topology

from ssl_jax.plan.collective_time import Latency, Ring, group_shape, rings, seconds

NO_LATENCY = Latency(0.0, 0.0)
POD = make_topology()
TWO_SLICES = make_topology(slices=2)


def across_slices(kind, size, **fields):
    return make_collective(kind, size, group=512, network="ici+dcn", **fields)


def test_gradients_and_embeddings_on_a_pod():
    """112 MB of gradients and 2 MiB of embeddings on 16x16: all-reduce 2V / (2 axes of 90 GB/s)."""
    inside, between = seconds(make_collective(size=112e6), POD, NO_LATENCY)
    assert inside == pytest.approx(2 * 112e6 * 255 / 256 / 180e9)
    assert inside == pytest.approx(1.24e-3, rel=0.01)
    assert between == 0
    inside, _ = seconds(make_collective("all-gather", 2 * 2**20), POD, NO_LATENCY)
    assert inside == pytest.approx(12e-6, rel=0.05)


def test_line_has_half_the_speed_of_a_ring():
    small = make_topology(shape=(8, 8), wraps=(False, False))
    line, _ = seconds(make_collective("all-gather", 1e9, group=64), small, NO_LATENCY)
    wrapped = small._replace(wraps=(True, True))
    ring, _ = seconds(make_collective("all-gather", 1e9, group=64), wrapped, NO_LATENCY)
    assert line == pytest.approx(2 * ring)


def test_latency_of_hops_bounds_small_messages():
    """16x16 has at most 8 + 8 hops on two rings, twice for a sum; a line of 8 has 7 hops."""
    sums = make_collective(size=4, count=100)
    assert seconds(sums, POD, Latency(1e-6, 0))[0] == pytest.approx(100 * 32e-6, rel=0.01)
    small = make_topology(shape=(8, 8), wraps=(False, False))
    one = make_collective("all-gather", 4, group=64)
    assert seconds(one, small, Latency(1e-6, 0))[0] == pytest.approx(14e-6, rel=0.01)


def test_all_reduce_takes_as_long_as_reduce_scatter_and_all_gather():
    whole = seconds(make_collective(size=256e6), POD, NO_LATENCY)[0]
    scatter = seconds(make_collective("reduce-scatter", 1e6), POD, NO_LATENCY)[0]
    gather = seconds(make_collective("all-gather", 256e6), POD, NO_LATENCY)[0]
    assert scatter == pytest.approx(gather)
    assert scatter + gather == pytest.approx(whole)


@pytest.mark.parametrize("kind", ["all-reduce", "reduce-scatter", "all-gather"])
def test_slices_exchange_only_the_part_of_each_chip(kind):
    """Each of a host's 4 chips sends 1/256 of the payload over the host's 25 GB/s."""
    payload = 512e6
    size = payload / 512 if kind == "reduce-scatter" else payload
    inside, between = seconds(across_slices(kind, size), TWO_SLICES, NO_LATENCY)
    times = 2 if kind == "all-reduce" else 1
    assert inside == pytest.approx(times * payload * 255 / 256 / 180e9)
    assert between == pytest.approx(times * payload / 256 / 2 * 4 / 25e9)


def test_all_to_all_is_bound_by_the_links_between_two_halves():
    """Half of 256 chips send half of 1 MB across 2 x 16 links of 45 GB/s, each way."""
    inside, _ = seconds(make_collective("all-to-all", 1e6), POD, NO_LATENCY)
    assert inside == pytest.approx(128 * 0.5e6 / (32 * 45e9))


def test_permute_uses_one_link():
    inside, _ = seconds(make_collective("collective-permute", 45e6), POD, NO_LATENCY)
    assert inside == pytest.approx(1e-3)


def test_gpus_use_nvlink_inside_and_network_between_hosts():
    """Inside, twice V (7/8) / 450 GB/s. Between 4 hosts, 8 GPUs send V/8 each over 400 GB/s."""
    hosts = make_topology(chip=H100, shape=(8, 4), wraps=(False, False))
    sums = make_collective(size=900e6, group=32, network="nvlink+dcn")
    inside, between = seconds(sums, hosts, NO_LATENCY)
    assert inside == pytest.approx(2 * 900e6 * 7 / 8 / 450e9)
    assert between == pytest.approx(2 * 900e6 / 8 * 3 / 4 * 8 / 400e9)


def test_group_shapes_of_a_two_axis_mesh_on_gpus():
    """With fsdp = 8 inside a host, "data" crosses only hosts and "fsdp" crosses none."""
    hosts = make_topology(chip=H100, shape=(8, 4), wraps=(False, False))
    assert group_shape(make_collective(group=4, axis="data", network="dcn"), hosts) == (1, 4)
    assert group_shape(make_collective(group=8, axis="fsdp", network="nvlink"), hosts) == (8, 1)
    both = make_collective(group=16, axis="data", network="nvlink+dcn")
    assert group_shape(both, hosts) == (4, 4)


def test_groups_cover_whole_axes_before_parts():
    assert rings(POD, "data,fsdp", 256) == (Ring(16, True), Ring(16, True))
    assert rings(POD, "fsdp", 4) == (Ring(4, False),)
    assert rings(POD, "fsdp", 32) == (Ring(16, True), Ring(2, False))
    assert rings(POD, "data", 8) == (Ring(8, False),)
    long = make_topology(shape=(4, 16), wraps=(False, True))
    assert rings(long, "fsdp", 4) == (Ring(4, False),)
    assert rings(long, "data", 16) == (Ring(16, True),)


def test_cores_of_a_chip_share_its_links():
    """v3 has two cores per chip; the ring carries the payload once for both."""
    v3 = make_topology(chip=V5E._replace(devices_per_chip=2), shape=(4, 8), wraps=(True, True))
    assert v3.devices == 64
    gather = seconds(make_collective("all-gather", 64e6, group=64), v3, NO_LATENCY)[0]
    scatter = seconds(make_collective("reduce-scatter", 1e6, group=64), v3, NO_LATENCY)[0]
    assert gather == pytest.approx(64e6 * 31 / 32 / 180e9)
    assert scatter == pytest.approx(gather)
    pair = seconds(make_collective("all-gather", 8.1e6, group=2, axis="fsdp"), v3, NO_LATENCY)[0]
    assert pair == pytest.approx(8.1e6 / 2 / 810e9)


def test_seconds_grow_with_bytes_and_multiply_with_count():
    for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"):
        one = sum(seconds(across_slices(kind, 1e6), TWO_SLICES))
        more = sum(seconds(across_slices(kind, 2e6), TWO_SLICES))
        many = sum(seconds(across_slices(kind, 1e6, count=10), TWO_SLICES))
        assert 0 < one < more < many == pytest.approx(10 * one), kind
        assert math.isfinite(many)
