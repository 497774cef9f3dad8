"""The roofline and the totals, against numbers worked by hand."""

import pytest
from programs import V5E, collective, program, topology

from ssl_jax.plan import roofline, run_totals
from ssl_jax.plan.collective_time import Latency
from ssl_jax.plan.roofline import Efficiency

HALF = Efficiency(0.5, 0.5, "")
NONE = Latency(0.0, 0.0)


def test_the_longer_of_compute_and_memory_then_the_network():
    """1.97e12 FLOPs at 197 TFLOP/s are 10 ms, 16.2 GB at 810 GB/s 20 ms; half speed: 20 and 40."""
    made = program(flops=1.97e12, bytes=16.2e9, collectives=(collective(size=180e6 * 256 / 255),))
    found = roofline.forecast(made, HALF, NONE)
    assert (found.compute_bound, found.compute) == pytest.approx((10e-3, 20e-3))
    assert (found.hbm_bound, found.hbm) == pytest.approx((20e-3, 40e-3))
    assert found.inside == pytest.approx(2e-3)
    assert found.step == pytest.approx(42e-3)
    assert (found.fastest, found.slowest) == pytest.approx((20e-3, 62e-3))
    assert found.binds == "HBM"
    assert found.images_per_second == pytest.approx(4096 / 42e-3)
    assert found.images_per_chip == pytest.approx(16 / 42e-3)
    assert found.mfu == pytest.approx(10 / 42)
    assert found.hbm_share == pytest.approx(20 / 42)


@pytest.mark.parametrize(
    ("changes", "binds"),
    [
        ({"bytes": 1e9}, "compute"),
        ({"flops": 1e9}, "HBM"),
        ({"flops": 1e9, "bytes": 1e6}, "ICI"),
    ],
)
def test_what_binds(changes, binds):
    assert roofline.forecast(program(**changes)).binds == binds


def test_between_slices_the_hosts_network_binds():
    slow = V5E._replace(dcn_bandwidth=25e6)
    sums = collective(group=512, network="ici+dcn")
    made = program(on=topology(chip=slow, slices=2), collectives=(sums,))
    found = roofline.forecast(made)
    assert found.binds == "DCN"
    assert found.step == pytest.approx(max(found.compute, found.hbm) + found.inside + found.between)


def test_a_chip_of_two_devices_gives_each_half():
    pair = topology(chip=V5E._replace(devices_per_chip=2))
    one, two = (roofline.forecast(program(on=on, collectives=())) for on in (topology(), pair))
    assert two.compute == pytest.approx(2 * one.compute)
    assert two.hbm == pytest.approx(2 * one.hbm)
    assert two.program.topology.chips == 256
    assert two.images_per_chip == pytest.approx(one.images_per_chip / 2)


def test_totals_of_a_run():
    """31,278 steps of 36 ms on 256 chips: 18 min 46 s, 80.1 chip-hours."""
    found = run_totals.run(
        steps=31_278, images=1_281_167, batch_size=4096, step_seconds=36e-3, chips=256,
        checkpoint_bytes=3e8, checkpoint_every=1250, keep=2,
    )  # fmt: skip
    assert found.epochs == pytest.approx(100, rel=1e-4)
    assert found.seconds == pytest.approx(1126.0, abs=0.1)
    assert found.chip_hours == pytest.approx(80.07, abs=0.01)
    assert (found.saves, found.kept) == (26, 2)
    assert found.save_every == pytest.approx(45)
