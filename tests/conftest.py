"""Stricter than production: 8 virtual devices, rank promotion raises (warnings are errors in
pyproject.toml). Real data is optional: SSL_JAX_DATA_DIR, default ../shared/data."""

import atexit
import os
import pathlib
import shutil
import signal
import tempfile

import emitters

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
if "cpu" in os.environ["JAX_PLATFORMS"]:
    # The tests compile hundreds of small programs and run each for moments: LLVM's optimisation
    # would be most of their time.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
        + emitters.FLAG,
    )

# What a shell starts by & ignores SIGINT, and so would every command that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Runs of one config compile the same programs: once a session is enough, for its children too.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ssl_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of real data; the test is skipped where there is none."""
    path = pathlib.Path(os.environ.get("SSL_JAX_DATA_DIR", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set SSL_JAX_DATA_DIR")
    return path


@pytest.fixture(scope="session")
def torch():
    """PyTorch, where it is installed (`make parity`)."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


@pytest.fixture(scope="session")
def torchvision(torch):
    """torchvision, also beside a build of torch for CPUs alone."""
    try:
        import torchvision
    except RuntimeError:
        # Its wheel looks for operators that such a build does not have; declared, they need not
        # work: nothing here calls them.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision = pytest.importorskip("torchvision")
        torchvision.declared_operators = library  # alive as long as the module
    except ImportError as error:
        pytest.skip(f"torchvision: {error}")
    return torchvision


@pytest.fixture(scope="session")
def timm(torchvision):
    """timm, the oracle of encoders and exports."""
    return pytest.importorskip("timm")
