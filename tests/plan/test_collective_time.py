"""Seconds of collectives, against numbers worked by hand."""

import math

import pytest
from programs import H100, V5E, collective, topology

from ssl_jax.plan.collective_time import Latency, Ring, rings, seconds, split

NONE = Latency(0.0, 0.0)
POD = topology()
TWO = topology(slices=2)


def test_the_table_of_gradients_and_embeddings():
    """112 MB of gradients and 2 MiB of embeddings on 16x16: all-reduce 2V / (2 axes of 90 GB/s)."""
    inside, between = seconds(collective(size=112e6), POD, NONE)
    assert inside == pytest.approx(2 * 112e6 * 255 / 256 / 180e9)
    assert inside == pytest.approx(1.24e-3, rel=0.01)
    assert between == 0
    inside, _ = seconds(collective("all-gather", 2 * 2**20), POD, NONE)
    assert inside == pytest.approx(12e-6, rel=0.05)


def test_without_a_wrap_a_ring_is_a_line_of_half_the_speed():
    small = topology(shape=(8, 8), wraps=(False, False))
    line, _ = seconds(collective("all-gather", 1e9, group=64), small, NONE)
    ring, _ = seconds(
        collective("all-gather", 1e9, group=64), small._replace(wraps=(True, True)), NONE
    )
    assert line == pytest.approx(2 * ring)


def test_small_messages_wait_for_the_hops():
    """16x16: at most 8 + 8 hops on two rings, twice for a sum; a line of 8 has 7."""
    sums = collective(size=4, count=100)
    assert seconds(sums, POD, Latency(1e-6, 0))[0] == pytest.approx(100 * 32e-6, rel=0.01)
    small = topology(shape=(8, 8), wraps=(False, False))
    one = collective("all-gather", 4, group=64)
    assert seconds(one, small, Latency(1e-6, 0))[0] == pytest.approx(14e-6, rel=0.01)


def test_a_scatter_of_sums_and_a_gather_make_an_all_reduce():
    whole = seconds(collective(size=256e6), POD, NONE)[0]
    scatter = seconds(collective("reduce-scatter", 1e6), POD, NONE)[0]
    gather = seconds(collective("all-gather", 256e6), POD, NONE)[0]
    assert scatter == pytest.approx(gather)
    assert scatter + gather == pytest.approx(whole)


@pytest.mark.parametrize("kind", ["all-reduce", "reduce-scatter", "all-gather"])
def test_two_slices_scatter_inside_first(kind):
    """Each of a host's 4 chips carries 1/256 of the payload over the host's 25 GB/s."""
    payload = 512e6
    size = payload / 512 if kind == "reduce-scatter" else payload
    inside, between = seconds(collective(kind, size, group=512, network="ici+dcn"), TWO, NONE)
    times = 2 if kind == "all-reduce" else 1
    assert inside == pytest.approx(times * payload * 255 / 256 / 180e9)
    assert between == pytest.approx(times * payload / 256 / 2 * 4 / 25e9)


def test_all_to_all_is_bound_by_the_cut():
    """Half of 256 chips send half of 1 MB across 2 x 16 links of 45 GB/s, each way."""
    inside, _ = seconds(collective("all-to-all", 1e6), POD, NONE)
    assert inside == pytest.approx(128 * 0.5e6 / (32 * 45e9))


def test_a_permute_uses_one_link():
    assert seconds(collective("collective-permute", 45e6), POD, NONE)[0] == pytest.approx(1e-3)


def test_inside_a_host_nvlink_and_between_hosts_the_network():
    """V (7/8) / 450 GB/s inside, twice; then each GPU V/8 over 4 hosts, 8 of them on 400 GB/s."""
    on = topology(chip=H100, shape=(8, 4), wraps=(False, False))
    sums = collective(size=900e6, group=32, network="nvlink+dcn")
    inside, between = seconds(sums, on, NONE)
    assert inside == pytest.approx(2 * 900e6 * 7 / 8 / 450e9)
    assert between == pytest.approx(2 * 900e6 / 8 * 3 / 4 * 8 / 400e9)


def test_a_mesh_of_two_axes_on_gpus():
    """fsdp = 8 inside a host: "data" then only crosses hosts, "fsdp" never."""
    on = topology(chip=H100, shape=(8, 4), wraps=(False, False))
    assert split(collective(group=4, axis="data", network="dcn"), on) == (1, 4)
    assert split(collective(group=8, axis="fsdp", network="nvlink"), on) == (8, 1)
    assert split(collective(group=16, axis="data", network="nvlink+dcn"), on) == (4, 4)


def test_groups_hold_whole_axes_before_parts():
    assert rings(POD, "data,fsdp", 256) == (Ring(16, True), Ring(16, True))
    assert rings(POD, "fsdp", 4) == (Ring(4, False),)
    assert rings(POD, "fsdp", 32) == (Ring(16, True), Ring(2, False))
    assert rings(POD, "data", 8) == (Ring(8, False),)
    long = topology(shape=(4, 16), wraps=(False, True))
    assert rings(long, "fsdp", 4) == (Ring(4, False),)
    assert rings(long, "data", 16) == (Ring(16, True),)


def test_two_cores_of_a_chip_share_its_links():
    """v3: 32 chips of two cores; the ring carries the payload once for both."""
    v3 = topology(chip=V5E._replace(devices_per_chip=2), shape=(4, 8), wraps=(True, True))
    assert v3.devices == 64
    gather = seconds(collective("all-gather", 64e6, group=64), v3, NONE)[0]
    scatter = seconds(collective("reduce-scatter", 1e6, group=64), v3, NONE)[0]
    assert gather == pytest.approx(64e6 * 31 / 32 / 180e9)
    assert scatter == pytest.approx(gather)
    pair = seconds(collective("all-gather", 8.1e6, group=2, axis="fsdp"), v3, NONE)[0]
    assert pair == pytest.approx(8.1e6 / 2 / 810e9)


def both(kind, size, **fields):
    return collective(kind, size, group=512, network="ici+dcn", **fields)


def test_every_kind_grows_with_its_bytes_and_repeats_with_its_count():
    for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"):
        one = sum(seconds(both(kind, 1e6), TWO))
        more = sum(seconds(both(kind, 2e6), TWO))
        many = sum(seconds(both(kind, 1e6, count=10), TWO))
        assert 0 < one < more < many == pytest.approx(10 * one), kind
        assert math.isfinite(many)
