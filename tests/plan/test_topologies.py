"""Names of topologies; if libtpu is installed, it must know the same ones."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from ssl_jax.errors import USAGE, Fault
from ssl_jax.plan import topologies

NAMES = (
    *("v2:2x2", "v3:4x4", "v4:2x2x1", "v4:4x4x4", "v5e:1x1", "v5e:2x4", "v5e:16x16"),
    *("v5p:4x4x8", "v6e:16x16"),
)


@pytest.mark.parametrize(
    ("name", "devices", "hosts", "wraps"),
    [
        ("v3:4x4", 32, 4, (False, False)),  # two cores per chip, each a device
        ("v3:32x32", 2048, 256, (True, True)),
        ("v4:4x4x4", 64, 16, (True, True, True)),  # two cores per chip, one device
        ("v4:2x2x4", 16, 4, (False, False, False)),
        ("v5e:8x16", 128, 32, (False, True)),
        ("v5e:2x4", 8, 1, (False, False)),
        ("v5p:4x4x8", 128, 32, (True, True, True)),
        ("h100:8x32", 256, 32, (False, False)),
        ("h200:8x1", 8, 1, (False, False)),
        ("a100:4x1", 4, 1, (False, False)),
        ("cpu:8", 8, 1, (False,)),
    ],
)
def test_parse_gives_devices_hosts_and_rings(name, devices, hosts, wraps):
    topology = topologies.parse(name)
    assert (topology.name, topology.devices, topology.hosts) == (name, devices, hosts)
    assert (topology.slices, topology.wraps) == (1, wraps)


def test_slices_multiply_devices_and_hosts():
    topology = topologies.parse("v5e:16x16", slices=2)
    assert (topology.devices, topology.hosts, topology.chips) == (512, 128, 512)
    assert topology.shape == (16, 16)


@pytest.mark.parametrize(
    ("name", "slices", "words"),
    [
        ("v5:4x4x4", 1, "no chip 'v5'; did you mean v5p or v5e"),
        ("tpu:4x4", 1, "Examples: v5e:16x16"),
        ("v5e:3x5", 1, "there is no such slice; the nearest ones are v5e:4x4, v5e:2x4"),
        ("v5e:4x2", 1, "v5e:2x4"),
        ("v5e:32x32", 1, "v5e:16x16"),
        ("v4:4x4", 1, "v4:2x2x4"),
        ("v4:8x4x4", 1, "v4:4x4x8"),
        ("v5e", 1, "write sizes after the chip"),
        ("v5e:0x4", 1, "write sizes after the chip"),
        ("h100:16x2", 1, "write GPUs per host x hosts, for example h100:8x1"),
        ("h100:8", 1, "GPUs per host x hosts"),
        ("h100:8x2", 2, "only TPUs have slices"),
        ("v5e:4x4", 0, "--slices=0: must be at least 1"),
    ],
)
def test_parse_refuses_unknown_topologies_and_suggests_near_ones(name, slices, words):
    with pytest.raises(Fault, match=re.escape(words)) as refused:
        topologies.parse(name, slices=slices)
    assert refused.value.code == USAGE


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="pip install libtpu")
def test_libtpu_knows_the_same_devices():
    code = (
        "from ssl_jax.plan import topologies\n"
        f"for name, slices in [(n, 1) for n in {NAMES}] + [('v5e:4x4', 2)]:\n"
        "    t = topologies.parse(name, slices=slices)\n"
        "    d = topologies.compile_devices(t)\n"
        "    print(name, len(d) == t.devices, getattr(d[-1], 'slice_index', None))\n"
    )
    variables = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    variables |= {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True
    )
    expected = [f"{name} True None" for name in NAMES] + ["v5e:4x4 True 1"]
    assert result.stdout.splitlines() == expected
