"""The number of usable CPU cores, with and without an affinity mask."""

import os

import pytest

from ssl_jax.jobs.cores import usable_cores


def test_usable_cores_counts_the_affinity_mask(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5}, raising=False)
    assert usable_cores() == 3


@pytest.mark.parametrize(("count", "want"), [(6, 6), (None, 1)])
def test_usable_cores_without_an_affinity_mask_uses_the_cpu_count(count, want, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cores() == want
