"""The network of `pytorch.py` at work in this process, where PyTorch is installed."""

import importlib
import importlib.util
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.export import check


def installed() -> bool:
    """Whether PyTorch is here and can be imported."""
    try:
        importlib.import_module("torch")
    except (ImportError, OSError):  # the latter: without one of its shared libraries
        return False
    return True


def network(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """The module that `config` describes with these tensors, in evaluation mode."""
    import torch

    from ssl_jax.export import pytorch

    state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    module = pytorch.build(dict(config), state)
    module.load_state_dict(state)
    return module.eval()


def shipped(folder: pathlib.Path) -> Any:
    """The module that an export's own `model.py` loads."""
    spec: Any = importlib.util.spec_from_file_location("ssl_jax_exported", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(folder)


def outputs(module: Any, images: np.ndarray, logits: bool) -> dict[str, np.ndarray]:
    """ "features" and "logits" of images [n, h, w, 3] in [0, 1]."""
    import torch

    batch = torch.from_numpy(check.nchw(images))
    with torch.no_grad():
        found = {"features": module(batch).numpy()}
        return found | ({"logits": module.logits(batch).numpy()} if logits else {})


def to_onnx(module: Any, images: np.ndarray, logits: bool, file: pathlib.Path) -> None:
    """Writes one self-contained file: "images" [n, 3, h, w] to "features" and "logits"."""
    import torch

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, images: torch.Tensor) -> Any:
            features = self.network(images)
            return (features, last(features)) if logits else features

    last = module.fc if hasattr(module, "fc") else module.head
    with warnings.catch_warnings():
        # The exporter calls parts of PyTorch that PyTorch deprecates: no news to who exports.
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        torch.onnx.export(
            Outputs().eval(),
            (torch.from_numpy(check.nchw(images)),),
            file,
            dynamo=True,
            external_data=False,
            input_names=["images"],
            output_names=["features", "logits"] if logits else ["features"],
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            verbose=False,
        )
