"""Builds and runs the network of `pytorch.py` in this process, if PyTorch is installed."""

import importlib
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.export import check


def is_installed() -> bool:
    """Returns True if PyTorch can be imported."""
    try:
        importlib.import_module("torch")
    except (ImportError, OSError):  # OSError if a shared library is missing
        return False
    return True


def build_network(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """Returns the torch module that `config` describes, in evaluation mode.

    Args:
      config: as `torch_weights.config` returns it.
      arrays: state of the module by name.
    """
    import torch

    from ssl_jax.export import pytorch

    state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    module = pytorch.build(dict(config), state)
    module.load_state_dict(state)
    return module.eval()


def load_export(folder: pathlib.Path) -> Any:
    """Returns the torch module that the export's own `model.py` loads."""
    # An import would leave bytecode in the export, with the folder's path on this machine.
    definition: dict[str, Any] = {"__name__": "ssl_jax_exported"}
    exec(compile((folder / "model.py").read_text(), "model.py", "exec"), definition)
    return definition["load"](folder)


def run_network(module: Any, images: np.ndarray, logits: bool) -> dict[str, np.ndarray]:
    """Returns "features" and, if `logits` is True, "logits" of images [n, h, w, 3] in [0, 1]."""
    import torch

    batch = torch.from_numpy(check.nchw(images))
    with torch.no_grad():
        outputs = {"features": module(batch).numpy()}
        return outputs | ({"logits": module.logits(batch).numpy()} if logits else {})


def write_onnx(module: Any, images: np.ndarray, logits: bool, file: pathlib.Path) -> None:
    """Writes one self-contained ONNX file.

    Args:
      module: the torch module.
      images: an example input, float32 [n, h, w, 3].
      logits: True to add the output "logits" to "features".
      file: path of the file. Its input "images" is [n, 3, h, w].
    """
    import torch

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, images: torch.Tensor) -> Any:
            features = self.network(images)
            return (features, classifier(features)) if logits else features

    classifier = module.fc if hasattr(module, "fc") else module.head
    with warnings.catch_warnings():
        # PyTorch's exporter uses deprecated parts of PyTorch, which users cannot change.
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
