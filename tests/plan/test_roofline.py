"""Roofline and totals of a run, against numbers worked by hand."""

import pytest
from programs import V5E, make_collective, make_program, make_topology

from ssl_jax.plan import roofline
from ssl_jax.plan.collective_time import Latency
from ssl_jax.plan.roofline import Efficiency
from ssl_jax.plan.run_totals import run_totals

HALF = Efficiency(0.5, 0.5, "")
NO_LATENCY = Latency(0.0, 0.0)


def test_step_is_the_longer_of_compute_and_memory_plus_network():
    """1.97e12 FLOPs at 197 TFLOP/s take 10 ms, 16.2 GB at 810 GB/s 20 ms; half speed: 20 and 40."""
    gradients = make_collective(size=180e6 * 256 / 255)
    program = make_program(flops=1.97e12, bytes=16.2e9, collectives=(gradients,))
    forecast = roofline.forecast(program, HALF, NO_LATENCY)
    assert (forecast.compute_bound, forecast.compute) == pytest.approx((10e-3, 20e-3))
    assert (forecast.hbm_bound, forecast.hbm) == pytest.approx((20e-3, 40e-3))
    assert forecast.inside == pytest.approx(2e-3)
    assert forecast.step == pytest.approx(42e-3)
    assert (forecast.fastest, forecast.slowest) == pytest.approx((20e-3, 62e-3))
    assert forecast.binds == "HBM"
    assert forecast.images_per_second == pytest.approx(4096 / 42e-3)
    assert forecast.images_per_chip == pytest.approx(16 / 42e-3)
    assert forecast.mfu == pytest.approx(10 / 42)
    assert forecast.hbm_share == pytest.approx(20 / 42)


@pytest.mark.parametrize(
    ("changes", "binds"),
    [
        ({"bytes": 1e9}, "compute"),
        ({"flops": 1e9}, "HBM"),
        ({"flops": 1e9, "bytes": 1e6}, "ICI"),
    ],
)
def test_longest_resource_binds(changes, binds):
    assert roofline.forecast(make_program(**changes)).binds == binds


def test_slow_network_between_slices_binds():
    slow = V5E._replace(dcn_bandwidth=25e6)
    sums = make_collective(group=512, network="ici+dcn")
    program = make_program(make_topology(chip=slow, slices=2), collectives=(sums,))
    forecast = roofline.forecast(program)
    assert forecast.binds == "DCN"
    local = max(forecast.compute, forecast.hbm)
    assert forecast.step == pytest.approx(local + forecast.inside + forecast.between)


def test_devices_of_a_two_device_chip_get_half_its_rates():
    pair = make_topology(chip=V5E._replace(devices_per_chip=2))
    one, two = (
        roofline.forecast(make_program(topology, collectives=()))
        for topology in (make_topology(), pair)
    )
    assert two.compute == pytest.approx(2 * one.compute)
    assert two.hbm == pytest.approx(2 * one.hbm)
    assert two.program.topology.chips == 256
    assert two.images_per_chip == pytest.approx(one.images_per_chip / 2)


def test_run_totals():
    """31,278 steps of 36 ms on 256 chips: 18 min 46 s, 80.1 chip-hours."""
    totals = run_totals(
        steps=31_278, images=1_281_167, batch_size=4096, step_seconds=36e-3, chips=256,
        checkpoint_bytes=3e8, checkpoint_every=1250, keep=2,
    )  # fmt: skip
    assert totals.epochs == pytest.approx(100, rel=1e-4)
    assert totals.seconds == pytest.approx(1126.0, abs=0.1)
    assert totals.chip_hours == pytest.approx(80.07, abs=0.01)
    assert (totals.saves, totals.kept) == (26, 2)
    assert totals.save_every == pytest.approx(45)
