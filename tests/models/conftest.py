"""timm, the oracle of the parity tests, where it is installed."""

import pytest


@pytest.fixture(scope="session")
def timm():
    torch = pytest.importorskip("torch")
    try:
        import timm
    except RuntimeError:
        # torchvision's wheel looks for operators that a CPU build of torch does not have; declared,
        # they need not work: nothing here calls them.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        timm = pytest.importorskip("timm")
        timm.declared_operators = library  # alive as long as the module
    except ImportError as error:
        pytest.skip(f"timm: {error}")
    return timm
