"""Runs are the same on 1, 2, 4 and 8 devices, and on 2 processes with 4 devices each."""

import os
import pathlib
import socket
import subprocess
import sys

import emitters
import invariance
import jax
import jax.numpy as jnp
import numpy as np
import pytest

# Largest relative distance of a tree after the first and the tenth step. In float32, rounding
# differences grow with every step. In float64, rounding cannot hide a real difference.
BOUNDS = {"float32": (5e-7, 5e-6), "float64": (1e-12, 1e-12)}
# In the first step, BatchNorm's sums are far from its running means. On one device, the float32
# gradient differs by as much from the float64 gradient.
GRADIENT = 5e-6
FOLDER = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def rows():
    return invariance.batches((0, 1))


def _run(rows, name, devices):
    with jax.enable_x64(name == "float64"):
        return invariance.trajectory(rows, jnp.dtype(name), jax.devices()[:devices])


@pytest.fixture(scope="module")
def alone(rows):
    return {name: _run(rows, name, 1) for name in BOUNDS}


def _gaps(got, want):
    """Returns {"STEP/TREE": relative distance of all leaves of the tree together}."""
    assert got.keys() == want.keys()
    parts = {}
    for name, leaf in want.items():
        difference, size = parts.setdefault(name.rsplit("/", 1)[0], [0.0, 0.0])
        wide = leaf.astype(np.float64)
        parts[name.rsplit("/", 1)[0]] = [
            difference + np.square(got[name] - wide).sum(),
            size + np.square(wide).sum(),
        ]
    return {name: np.sqrt(difference / size) for name, (difference, size) in parts.items()}


def _assert_equal(got, want, dtype):
    gaps = _gaps(got, want)
    first, tenth = BOUNDS[dtype]
    for name, distance in gaps.items():
        bound = first if name.startswith("1/") else tenth
        if name == "1/gradient" and dtype == "float32":
            bound = GRADIENT
        assert distance <= bound, gaps


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_runs_are_equal_on_any_number_of_devices(rows, alone, dtype, devices):
    got = _run(rows, dtype, devices)
    assert {leaf.dtype for leaf in got.values()} == {np.dtype(dtype)}
    _assert_equal(got, alone[dtype], dtype)


def test_two_processes_with_four_devices_equal_one_device(rows, alone, tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    env = os.environ | {
        "XLA_FLAGS": f"--xla_backend_optimization_level=0 {emitters.FLAG}",
        "PYTHONPATH": os.pathsep.join(map(str, (FOLDER.parent, FOLDER))),
    }
    out = [tmp_path / f"{process}.npz" for process in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, FOLDER / "invariance.py", *map(str, (p, 2, 4, port, out[p]))], env=env
        )
        for p in range(2)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    results = [dict(np.load(file)) for file in out]
    hashes = np.concatenate([result.pop("hashes") for result in results], axis=1)
    np.testing.assert_array_equal(hashes, invariance.row_hashes(rows))
    for result in results:
        for dtype in BOUNDS:
            part = {n.split("/", 1)[1]: x for n, x in result.items() if n.startswith(dtype)}
            _assert_equal(part, alone[dtype], dtype)
