"""anomalib's PatchCore, PaDiM and STFPM as detectors: what strong methods of the field reach on the same splits.

PatchCore: Roth et al., CVPR 2022, https://arxiv.org/abs/2106.08265; PaDiM: Defard et al., ICPR Workshops 2021,
https://arxiv.org/abs/2011.08785; STFPM: Wang et al., BMVC 2021, https://arxiv.org/abs/2103.04257. The networks and
their computations are those of anomalib's `torch_model` files. Its coreset selection and its loss for STFPM are used
too, nothing else of anomalib.

Where this differs from anomalib, and why

1. Scores and maps are raw, in eval mode. anomalib's post-processor rescales them by the scores of the validation set,
   which by default is the test set.
2. The backbone's weights are those available on this machine, see features.py; anomalib's own choice, Wide-ResNet-50
   or ResNet-18, has to be downloaded from a model hub. Features are taken from the layers of the same resolutions.
3. There is no early stopping on validation scores: STFPM trains for `epochs`.
4. The random projection of the coreset selection is drawn from the detector's seed; anomalib takes it from NumPy's
   global random generator.
5. EfficientAD is not offered: its teacher (a release file on GitHub) and the ImageNette images that its loss needs
   have to be downloaded, and are in no package. STFPM, its predecessor, is a student-teacher method too.
6. PatchCore and PaDiM use at most 500 training images (`most_images`), evenly spaced, because all patches of
   CIFAR-10's 5,000 images are too many to hold in memory. Categories of MVTec AD have fewer than 500, so that none is
   left out.
7. STFPM's weight decay is its paper's 1e-4; anomalib's is 1e-3. PaDiM keeps 100 features of any backbone
   (`dimensions`); anomalib keeps 100 of ResNet-18 and 550 of Wide-ResNet-50.
8. Backbones see images of 224 x 224 pixels (`feature_size`); anomalib's default is 256 x 256.
9. With --precision bf16 only STFPM's training steps are in bf16: statistics and distances of patches would be noise.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from adbench_baselines.layers import Rate
from adbench_plugins import features
from adbench_plugins.feature_anchors import FeatureConfig, FeatureDetector, resolved
from adbench_tgan import AdbenchError, Detector, ImageSet, TrainSet, mean_losses, stepper

Shape = tuple[int, int, int]
BATCH = 32  # training images whose features are taken at a time
QUICK = {"image_size": 32, "backbone": "tf_efficientnet_lite0", "feature_size": 64}  # nothing to download
LAYERS = {  # with maps of 1/4, 1/8 and 1/16 of the side
    "resnet50": ("layer1", "layer2", "layer3"),
    "tf_efficientnet_lite0": ("blocks.1", "blocks.2", "blocks.4"),
}
CHANNELS = {"resnet50": 256 + 512 + 1024, "tf_efficientnet_lite0": 24 + 40 + 112}  # of these maps together


class AnomalibConfig(FeatureConfig):
    image_size: int = Field(default=224, ge=4)
    """side in pixels to which the benchmark resizes images for this detector"""


class MemoryConfig(AnomalibConfig):
    most_images: int = Field(default=500, ge=1)
    """largest number of training images used; of a larger training set, evenly spaced ones"""


def in_full(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method` without autocast: means, covariances and distances of many patches are noise in bf16."""

    @functools.wraps(method)
    def called(self: Detector, *words: Any) -> Any:
        kind = torch.device(self.device).type
        if not torch.amp.is_autocast_available(kind):
            return method(self, *words)
        with torch.autocast(kind, enabled=False):
            return method(self, *words)

    return called


class AnomalibDetector(FeatureDetector):
    """What the three detectors share: frozen features of a backbone, raw scores, maps at the images' size."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": QUICK}

    def build(self, shape: Shape) -> None:
        named = self.config.backbone
        self.backbone = named if features.brought_along(self) else resolved(self.name, named)
        with warnings.catch_warnings():  # what anomalib imports of its own past is no user's business
            warnings.simplefilter("ignore", FutureWarning)
            self.model = self.make(self.backbone).to(self.device).eval()
        self.scaling = [values.to(self.device) for values in features.scaling(self.backbone)]

    def make(self, backbone: str) -> nn.Module:
        """The untrained model."""
        raise NotImplementedError

    def pretrain(self, network: nn.Module, backbone: str) -> None:
        """Give the first layers of a backbone their weights, unless a saved state brings them, and freeze them."""
        if not self.loading:
            load_backbone(network, backbone)
        network.requires_grad_(False)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"model": self.model} if hasattr(self, "model") else {}

    @torch.no_grad()
    @in_full
    def score(self, images: Tensor) -> Tensor:
        return self.model(self.prepared(images)).pred_score.flatten().float()

    @torch.no_grad()
    @in_full
    def anomaly_map(self, images: Tensor) -> Tensor:
        maps = self.model(self.prepared(images)).anomaly_map.float()  # (B, 1, F, F)
        return F.interpolate(maps, images.shape[-2:], mode="bilinear", antialias=True)[:, 0]

    def prepared(self, images: Tensor) -> Tensor:
        """Uint8 (B, 1 or 3, H, W) -> float32 (B, 3, F, F), scaled as the backbone expects."""
        x = images.float().expand(-1, 3, -1, -1)
        side = self.config.feature_size
        if x.shape[-2:] != (side, side):
            x = F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
        mean, std = self.scaling
        return (x - mean) / std

    @torch.no_grad()
    def collect(self, images: ImageSet) -> None:
        """Let the model remember the features of up to `most_images` images, as it does in train mode."""
        most = self.config.most_images
        if len(images) > most:
            images = ImageSet(images.on("cpu")[torch.linspace(0, len(images) - 1, most).round().long()])
        self.model.train()
        for batch in images.batches(BATCH, device=self.device):
            self.model(self.prepared(batch))
        self.model.eval()


class PatchCore(AnomalibDetector):
    """The largest distance of a patch to its nearest normal patch, weighted by the distances to that one's neighbours."""

    class Config(MemoryConfig):
        coreset: float = Field(default=0.1, gt=0, le=1)
        """fraction of the training patches kept in memory; selecting them is slow with more than a few hundred images"""
        neighbours: int = Field(default=9, ge=1)
        """nearest patches in memory by which an image's score is weighted (anomalib's num_neighbors)"""

    name = "anomalib_patchcore"

    def make(self, backbone: str) -> nn.Module:
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        layers = list(LAYERS[backbone][1:])
        model = PatchcoreModel(layers, backbone, pre_trained=False, num_neighbors=self.config.neighbours)
        self.pretrain(model.feature_extractor.feature_extractor, backbone)
        return model

    @in_full
    def fit(self, train: TrainSet) -> Self:
        self.build(train.shape)
        # After that, since what anomalib says of its own past when it is first imported is silenced there.
        from anomalib.models.components import KCenterGreedy

        self.collect(train.normal)
        patches = torch.vstack(self.model.embedding_store)  # (N * patches, features)
        self.model.embedding_store.clear()
        kept = int(self.config.coreset * len(patches))
        # With one patch anomalib would weigh a score by the other images of its batch, unless it weighs by none.
        if kept < min(self.config.neighbours, 2):
            raise AdbenchError(
                f"anomalib_patchcore.coreset={self.config.coreset:g} keeps {kept or 'none'} of {len(patches)} patches; "
                "set a larger share"
            )
        sampler = KCenterGreedy(patches, self.config.coreset)
        # One source for all rows of the projection, which a bare number would make alike; anomalib asks for this kind.
        sampler.model.random_state = np.random.RandomState(self.seed)
        with contextlib.redirect_stderr(io.StringIO()):  # it draws a bar of its own
            self.model.memory_bank = sampler.sample_coreset()
        return self


class PaDiM(AnomalibDetector):
    """The largest Mahalanobis distance of a patch to the normal patches at the same position."""

    class Config(MemoryConfig):
        most_images: int = Field(default=500, ge=2)
        """largest number of training images used; of a larger training set, evenly spaced ones"""
        dimensions: int = Field(default=100, ge=1)
        """number of features kept per patch, chosen at random"""

    name = "anomalib_padim"

    @classmethod
    def plan(cls, config: Any) -> Any:
        found = super().plan(config)
        check_dimensions(found.dimensions, found.backbone)
        return found

    def make(self, backbone: str) -> nn.Module:
        from anomalib.models.image.padim.torch_model import PadimModel

        layers, count = list(LAYERS[backbone]), self.config.dimensions
        check_dimensions(count, backbone)
        model = PadimModel(backbone, layers, pre_trained=False, n_features=count)
        self.pretrain(model.feature_extractor.feature_extractor, backbone)
        return model

    @in_full
    def fit(self, train: TrainSet) -> Self:
        if len(train.normal) < 2:
            raise AdbenchError(
                "anomalib_padim learns covariances, which need at least 2 training images; give more"
            )
        self.build(train.shape)
        self.collect(train.normal)
        self.model.fit()
        return self


class STFPM(AnomalibDetector):
    """The largest distance between the features of a student, trained on normal images only, and of its teacher."""

    class Config(AnomalibConfig):
        epochs: int = Field(default=100, ge=1)
        """passes over the training images"""
        batch_size: int = Field(default=32, ge=1)
        """images per step"""
        lr: Rate = 0.4
        """learning rate of SGD with momentum .9 and weight decay 1e-4"""

    name = "anomalib_stfpm"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {**QUICK, "epochs": 10, "batch_size": 16}}

    @classmethod
    def plan(cls, config: Any) -> Any:
        found = super().plan(config)
        check_maps(found.batch_size, found.feature_size, found.backbone)
        return found

    def make(self, backbone: str) -> nn.Module:
        from anomalib.models.components import TimmFeatureExtractor
        from anomalib.models.image.stfpm.anomaly_map import AnomalyMapGenerator
        from anomalib.models.image.stfpm.torch_model import STFPMModel

        pretrain = self.pretrain

        class Offline(STFPMModel):
            """anomalib's forward pass; its constructor would download the teacher."""

            def __init__(self) -> None:
                nn.Module.__init__(self)
                layers = list(LAYERS[backbone])
                self.tiler = None
                self.teacher_model = TimmFeatureExtractor(backbone, layers, pre_trained=False).eval()
                pretrain(self.teacher_model.feature_extractor, backbone)
                self.student_model = TimmFeatureExtractor(
                    backbone, layers, pre_trained=False, requires_grad=True
                )
                self.anomaly_map_generator = AnomalyMapGenerator()

        return Offline()

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        self.build(train.shape)
        from anomalib.models.image.stfpm.loss import STFPMLoss  # after that as well

        self.model.train()
        optimizer = torch.optim.SGD(
            self.model.student_model.parameters(), lr=self.config.lr, momentum=0.9, weight_decay=1e-4
        )
        order = torch.Generator().manual_seed(self.seed)
        size = min(self.config.batch_size, len(train.normal))
        check_maps(size, self.config.feature_size, self.backbone)
        step = stepper(self, lambda images: self.step(images, optimizer, STFPMLoss()))
        done = self.resume(optimizer=optimizer, order=order)
        for _ in range(done, self.config.epochs):
            batches = train.normal.batches(size, device=self.device, shuffle=order, drop_last=True)
            yield mean_losses(map(step, batches))

    def step(
        self, images: Tensor, optimizer: torch.optim.Optimizer, criterion: nn.Module
    ) -> dict[str, Tensor]:
        teacher, student = self.model(self.prepared(images))
        loss = criterion(teacher, student)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss}


def check_dimensions(count: int, backbone: str) -> None:
    """Refuse more features per patch than the backbone's maps have."""
    if count > CHANNELS[backbone]:
        raise AdbenchError(
            f"anomalib_padim.dimensions={count}: {backbone} has {CHANNELS[backbone]:,} features; set no more"
        )


def check_maps(batch: int, feature_size: int, backbone: str) -> None:
    """Refuse single images whose last maps are one pixel, as batch norm has no variance of one value."""
    if batch == 1 and feature_size == 32 and backbone != "resnet50":
        raise AdbenchError(
            "anomalib_stfpm.feature_size=32 needs two images in a batch, as its last maps are one pixel; set a larger one"
        )


def load_backbone(network: nn.Module, name: str) -> None:
    """Load this machine's weights into the first layers of the backbone `name`."""
    path = features.find_weights(name)
    assert path is not None  # else `resolved` had raised
    state = features.read_weights(path)
    wanted = network.state_dict()
    missing = wanted.keys() - state.keys()
    if missing:
        raise AdbenchError(f"the weights in {path} lack {min(missing)} of {name}; name another backbone")
    network.load_state_dict({key: state[key] for key in wanted})
