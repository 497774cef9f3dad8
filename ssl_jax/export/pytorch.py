"""Definition of the exported network; it needs only PyTorch.

    from model import load
    model = load("path/to/this/folder")
    features = model(images)  # [n, 3, h, w] in [0, 1] to [n, f]

The network standardises images itself if necessary, so pass values in [0, 1]. If the export has a
classifier, `model.logits(images)` returns its outputs.
"""

import json
import pathlib

import torch
from torch import nn
from torch.nn import functional


def load(folder: str = ".") -> nn.Module:
    """Returns the network of an export folder with its weights, in evaluation mode, on the CPU."""
    path = pathlib.Path(folder)
    config = json.loads((path / "config.json").read_text())["ssl_jax"]
    state = read(path / "model.safetensors")
    model = build(config, state)
    model.load_state_dict(state)
    return model.eval()


def build(config: dict, state: dict[str, torch.Tensor]) -> nn.Module:
    """Returns the network that `config` describes, with random weights.

    Args:
      config: value of "ssl_jax" in config.json.
      state: tensors by name; their shapes give the numbers of classes and positions.
    """
    if config["family"] == "resnet":
        return ResNet(config, classes=len(state.get("fc.bias", ())))
    return ViT(config, len(state["pos_embed"][0]), classes=len(state.get("head.bias", ())))


def read(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a safetensors file: a length, a JSON header, bytes."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    dtypes = {"F32": torch.float32, "I64": torch.int64}
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = dtypes[entry["dtype"]]
            flat = torch.frombuffer(data[start + begin : start + end], dtype=dtype)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


class Standardise(nn.Module):
    """Subtracts `mean` from images and divides by `std`, per channel."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: dict):
        super().__init__()
        for name in ("mean", "std"):
            values = torch.tensor(config[name]).reshape(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


def pad_same(x: torch.Tensor, kernel: int, stride: int, value: float = 0.0) -> torch.Tensor:
    """Pads as TensorFlow's SAME: sides become ceil(side / stride); the odd pixel is at the end."""
    pads = []
    for side in (x.shape[-1], x.shape[-2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads, value=value)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = pad_same(x, self.kernel_size[0], self.stride[0])
        return functional.conv2d(x, self.weight, stride=self.stride)


def convolution(padding: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Returns a convolution without bias."""
    if padding == "same":
        return SameConv2d(inputs, outputs, kernel, stride, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class SelectiveKernel(nn.Module):
    """Two 3x3 streams mixed by a softmax per channel (arXiv 1903.06586, as in SimCLR v2)."""

    def __init__(self, channels: int, stride: int, ratio: float):
        super().__init__()
        reduced = max(int(channels * ratio), 32)
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * channels)
        self.reduce = nn.Conv2d(channels, reduced, 1, bias=False)
        self.reduce_bn = nn.BatchNorm2d(reduced)
        self.expand = nn.Conv2d(reduced, 2 * channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        streams = functional.relu(self.bn(self.conv(x))).unflatten(1, (2, -1))
        gate = streams.sum(1).mean((2, 3), keepdim=True)
        gate = self.expand(functional.relu(self.reduce_bn(self.reduce(gate))))
        return (streams * gate.unflatten(1, (2, -1)).softmax(1)).sum(1)


class AveragePool(nn.Module):
    """2x2 average pooling, padded at the bottom and right; at stride 1, padding is not averaged."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # At stride 1, repeated edges give the same averages as leaving the padding out.
        x = functional.pad(x, (0, 1, 0, 1), "replicate" if self.stride == 1 else "constant")
        return functional.avg_pool2d(x, 2, self.stride)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1; the stride is on the first 3x3."""

    def __init__(self, config: dict, inputs: int, channels: int, stride: int):
        super().__init__()
        padding, ratio = config["padding"], config["sk_ratio"]
        bottleneck = config["block"] == "Bottleneck"
        outputs = 4 * channels if bottleneck else channels
        steps = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        self.depth = len(steps)
        width = inputs
        for i, (kernel, step) in enumerate(steps, 1):
            after = outputs if i == self.depth else channels
            if ratio and kernel == 3:
                self.add_module(f"conv{i}", SelectiveKernel(channels, stride, ratio))
                self.add_module(f"bn{i}", nn.Identity())  # SelectiveKernel normalises itself
            else:
                self.add_module(f"conv{i}", convolution(padding, width, after, kernel, step))
                self.add_module(f"bn{i}", nn.BatchNorm2d(after))
            width = after
        projects = stride > 1 or inputs != outputs
        self.pool = AveragePool(stride) if ratio and projects else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if projects:
            shortcut = convolution(padding, inputs, outputs, 1, 1 if ratio else stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = functional.relu(y) if i < self.depth else y
        return functional.relu(y + self.downsample(self.pool(x)))


class ResNet(nn.Module):
    """Residual network from [n, 3, h, w] to pooled features [n, f]; `fc` is the classifier."""

    def __init__(self, config: dict, classes: int = 0):
        super().__init__()
        self.padding, self.stem = config["padding"], config["stem"]
        channels = config["channels"]
        self.standardise = Standardise(config)
        self.conv1 = self.first(config, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        width, self.stages = channels, len(config["stages"])
        for i, size in enumerate(config["stages"]):
            blocks = []
            for j in range(size):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Block(config, width, channels * 2**i, stride))
                width = channels * 2**i * (4 if config["block"] == "Bottleneck" else 1)
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width, classes) if classes else nn.Identity()

    @staticmethod
    def first(config: dict, channels: int) -> nn.Module:
        """Returns the stem: 7x7 with stride 2, ResNet-D's three 3x3, or one 3x3 for CIFAR."""
        padding, half = config["padding"], channels // 2
        if config["stem"] == "cifar":
            return convolution(padding, 3, channels, 3)
        if not config["sk_ratio"]:
            return convolution(padding, 3, channels, 7, 2)
        return nn.Sequential(
            convolution(padding, 3, half, 3, 2),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            convolution(padding, half, half, 3),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            convolution(padding, half, channels, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(self.standardise(x))))
        if self.stem == "imagenet" and self.padding == "torch":
            x = functional.max_pool2d(x, 3, 2, 1)
        elif self.stem == "imagenet":
            x = functional.max_pool2d(pad_same(x, 3, 2, -torch.inf), 3, 2)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return x.mean((2, 3))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the classifier's outputs [n, classes]."""
        return self.fc(self(x))


class PatchEmbed(nn.Module):
    """Maps square patches to tokens, [n, 3, h, w] to [n, t, width]."""

    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two dense layers with a GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class TransformerBlock(nn.Module):
    """Pre-norm block: attention and MLP, each with a LayerNorm before it and a residual around."""

    def __init__(self, config: dict):
        super().__init__()
        width = config["width"]
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, config["heads"])
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, config["mlp_ratio"] * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Vision Transformer from [n, 3, h, w] to features [n, width]; `head` is the classifier."""

    def __init__(self, config: dict, tokens: int, classes: int = 0):
        super().__init__()
        width = config["width"]
        self.pool = config["pool"]
        self.standardise = Standardise(config)
        self.patch_embed = PatchEmbed(width, config["patch_size"])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.blocks = nn.Sequential(*[TransformerBlock(config) for _ in range(config["depth"])])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes) if classes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(self.standardise(x))
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        x = self.norm(self.blocks(x))
        return x[:, 0] if self.pool == "token" else x[:, 1:].mean(1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the classifier's outputs [n, classes]."""
        return self.head(self(x))
