"""The process number from flag and environment."""

import pytest

from ssl_jax.jobs.process_number import process_number

SECOND_SLICE = {"TPU_WORKER_ID": "1", "MEGASCALE_SLICE_ID": "1"}


@pytest.mark.parametrize(
    ("flag", "environment", "number"),
    [
        (None, {}, 0),
        ("3", {"SSL_JAX_PROCESS": "1"}, 3),
        ("-1", {"SSL_JAX_PROCESS": "1"}, 1),
        (None, {"SSL_JAX_PROCESS": "1", "SLURM_PROCID": "2"}, 1),
        (None, {"SLURM_PROCID": "2"}, 2),
        (None, {"OMPI_COMM_WORLD_RANK": "5"}, 5),
        (None, {"SKYPILOT_NODE_RANK": "4"}, 4),
        (None, {"JOB_COMPLETION_INDEX": "3"}, 3),
        (None, {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b"}, 1),
        # Two slices, each of which counts its hosts from 0.
        (None, SECOND_SLICE | {"TPU_WORKER_ID": "0"}, 1),
        (None, SECOND_SLICE | {"TPU_WORKER_HOSTNAMES": "c,d"}, 3),
    ],
)
def test_process_number(flag, environment, number):
    assert process_number(environment, flag) == number
