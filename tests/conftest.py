"""Fixtures, and settings that are stricter than in production.

Tests run on 8 virtual devices, and rank promotion raises; pyproject.toml turns warnings into
errors. Tests on real data read SSL_JAX_DATA_DIR, by default ../shared/data, and are skipped without
the data.
"""

import atexit
import os
import pathlib
import shutil
import signal
import tempfile
from collections.abc import Iterator

import emitters

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
if "cpu" in os.environ["JAX_PLATFORMS"]:
    # The tests compile hundreds of small programs that run only briefly. LLVM's optimisation would
    # take most of their time.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
        + emitters.FLAG,
    )

# Processes started by & in a shell ignore SIGINT, and their child processes inherit this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Runs of one config compile the same programs. A cache per session, which child processes share,
# compiles each program once.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ssl_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Restores the handlers of signals: a verb ends by ignoring them, and children inherit this."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """Folder of real data; skips the test if it does not exist."""
    path = pathlib.Path(os.environ.get("SSL_JAX_DATA_DIR", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set SSL_JAX_DATA_DIR")
    return path


@pytest.fixture(scope="session")
def torch():
    """PyTorch; skips the test if it is not installed (see `make parity`)."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


@pytest.fixture(scope="session")
def torchvision(torch):
    """torchvision; also works with a CPU-only build of torch."""
    try:
        import torchvision
    except RuntimeError:
        # The wheel looks up operators that a CPU-only build lacks. They are only declared here,
        # because no test calls them.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision = pytest.importorskip("torchvision")
        torchvision.declared_operators = library  # keeps the declarations alive
    except ImportError as error:
        pytest.skip(f"torchvision: {error}")
    return torchvision


@pytest.fixture(scope="session")
def timm(torchvision):
    """timm, the oracle for encoders and exports; skips the test if it is not installed."""
    return pytest.importorskip("timm")
