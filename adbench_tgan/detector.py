"""The contract between the benchmark and a detector. Importing this module does not import torch."""

from __future__ import annotations

import keyword
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from textwrap import shorten
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from adbench_tgan.errors import AdbenchError
from adbench_tgan.info import DetectorInfo as DetectorInfo  # the third of the contract

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from adbench_tgan.checkpoints import Checkpoint
    from adbench_tgan.data import TrainSet

Shape = tuple[int, int, int]  # channels, height, width


class DetectorConfig(BaseModel):
    """The settings of a detector; its fields are the keys of ``--set DETECTOR.KEY=VALUE``."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,  # JSON has neither
    )

    image_size: int = Field(default=32, ge=4)
    """side in pixels to which the benchmark resizes images for this detector"""

    @property
    def pretrained(self) -> str | None:
        """The name of the pretrained weights that these settings use, if any."""
        return None

    @property
    def takes_anomalies(self) -> bool:
        """Whether a detector declared "labelled" gets labelled anomalies under these settings."""
        return True


class Detector(ABC):
    """Higher score = more anomalous. A score depends on its own image and on nothing else in the batch.

    Write `score`, and `fit` or `epochs`. Images are uint8 (B, C, H, W); each detector scales for itself.
    What `fit` learns is kept in `networks` or in tensor attributes, so that it can be saved.
    """

    Config: ClassVar[type[DetectorConfig]] = DetectorConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {}}  # settings that differ from "paper"
    graphs: bool = True  # False keeps an instance from using CUDA graphs
    loading: bool = False  # True while `load_state` builds networks, which then need no weights of their own
    checkpoint: Checkpoint | None = None  # where `training.fit` keeps the training while it lasts

    def __init__(
        self, config: DetectorConfig | None = None, *, device: str | torch.device = "cpu", seed: int = 0
    ):
        self.config: Any = config if config is not None else self.Config()
        self.device = device
        self.seed = seed
        self.notes: list[str] = []  # fallbacks, and whatever else a reader of its row must know

    @classmethod
    def plan(cls, config: Any) -> Any:
        """Replace settings that depend on the machine, such as "auto", by what will be used.

        Called once when jobs are planned, so that the job's key holds the choice.

        Raises:
            NotHere: the machine lacks what these settings need.
        """
        return config

    def build(self, shape: Shape) -> None:  # noqa: B027 (optional)
        """Create the untrained networks for images of `shape`; to count, load and audit them without `fit`."""

    def fit(self, train: TrainSet) -> Self:
        """Learn from `train`. The default runs `epochs` and leaves every network in eval mode; one's own may call it.

        Raises:
            TrainingDiverged: a loss is NaN or infinite.
        """
        from adbench_tgan.training import check_finite, losses_of

        for number, losses in enumerate(losses_of(self, train), start=1):
            check_finite(losses, number)
        for network in self.networks.values():
            network.eval()
        return self

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        """Train, and yield the mean of each loss after every epoch.

        One that calls `resume` right before its first epoch can be interrupted, and goes on from there.
        """
        raise AdbenchError(f"{type(self).__name__} implements neither fit nor epochs")

    def resume(self, **parts: Any) -> int:
        """How many epochs are done already, and not to be trained again; `parts` and networks are as they were then.

        Args:
            parts: all that training changes beside `networks` and the global random numbers: optimisers and
                whatever else has ``state_dict`` and ``load_state_dict``, tensors, ``torch.Generator``.

        Raises:
            AdbenchError: what was kept of an interrupted training does not fit, or this is called once more.
        """
        return 0 if self.checkpoint is None else self.checkpoint.take_up(self, parts)

    @abstractmethod
    def score(self, images: Tensor) -> Tensor:
        """Uint8 (B, C, H, W) -> float32 (B,), raw: nothing seen at test time may rescale it."""

    def anomaly_map(self, images: Tensor) -> Tensor:
        """Uint8 (B, C, H, W) -> float32 (B, H, W), higher where more anomalous."""
        raise AdbenchError(f"{type(self).__name__} has no anomaly maps")

    def reconstruct(self, images: Tensor) -> Tensor:
        """Uint8 (B, C, H, W) -> uint8 (B, C, H, W)."""
        raise AdbenchError(f"{type(self).__name__} does not reconstruct images")

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by name, for counting, saving and auditing; those of `build` or `fit`."""
        return {}

    def expected_epochs(self, train: TrainSet) -> int | None:
        """How often `epochs` will yield, for a bar of progress; None where nobody can say beforehand."""
        config = getattr(self, "config", None)  # a stranger's __init__ may not call ours
        return getattr(config, "epochs", None)

    @property
    def side_by_side(self) -> int:
        """Images that it always scores side by side: fewer are filled up with copies, and cost as much."""
        return 1

    @property
    def has_maps(self) -> bool:
        """Whether `anomaly_map` is implemented."""
        return type(self).anomaly_map is not Detector.anomaly_map

    def state(self) -> dict[str, Tensor]:
        """All that `score` needs: the tensors of each network as ``network.key``, and tensor attributes.

        Raises:
            AdbenchError: `networks` is no dictionary of modules.
        """
        import torch

        networks = {
            f"{name}.{key}": tensor
            for name, network in networks_of(self).items()
            for key, tensor in network.state_dict().items()
        }
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in (networks | self._tensors()).items()
        }

    def _tensors(self) -> dict[str, Tensor]:
        import torch

        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    def parameter_counts(self) -> dict[str, int]:
        """Numbers in each network, frozen ones included, and in each tensor that `fit` learned."""
        counts = {name: sum(p.numel() for p in net.parameters()) for name, net in self.networks.items()}
        return counts | {name: tensor.numel() for name, tensor in self._tensors().items()}

    def load_state(self, state: Mapping[str, Tensor], shape: Shape) -> Self:
        """Become the fitted detector whose `state` this is.

        Raises:
            AdbenchError: the tensors are not those of this detector with this configuration.
        """
        self.loading = True
        try:
            self.build(shape)
        finally:
            self.loading = False
        networks = self.networks
        owners = {key: owner(key, networks) for key in state}
        for name, network in networks.items():
            own = {key.removeprefix(f"{name}."): state[key] for key in state if owners[key] == name}
            try:
                network.load_state_dict(own)
            except RuntimeError as error:
                reason = shorten(str(error).splitlines()[-1], 200, placeholder=" ...")
                raise AdbenchError(f"the saved model does not fit network {name!r}: {reason}") from None
            network.eval()
        for name in (key for key in state if owners[key] is None):
            if "." in name:
                raise AdbenchError(
                    f"the saved model holds {name!r}, which is no part of {type(self).__name__}"
                )
            self._check_tensor(name, state[name])
            setattr(self, name, state[name].to(self.device))
        return self

    def _check_tensor(self, name: str, tensor: Tensor) -> None:
        """Refuse a saved tensor that would take the place of anything but a tensor of its own shape, or a None."""
        import torch

        held = vars(self).get(name)
        if isinstance(held, torch.Tensor) and held.shape != tensor.shape:
            raise AdbenchError(
                f"the saved model does not fit: {name!r} is {tuple(tensor.shape)}, not {tuple(held.shape)}"
            )
        taken = hasattr(Detector, name) or getattr(type(self), name, None) is not None
        taken = taken or not (held is None or isinstance(held, torch.Tensor))
        if taken or not name.isidentifier() or keyword.iskeyword(name):
            raise AdbenchError(f"the saved model holds {name!r}, which is no tensor of {type(self).__name__}")


def owner(key: str, networks: Iterable[str]) -> str | None:
    """The network that a tensor of `Detector.state` is of, if any; the names of networks may have dots."""
    return max((name for name in networks if key.startswith(f"{name}.")), key=len, default=None)


def networks_of(detector: Detector) -> dict[str, nn.Module]:
    """A detector's networks.

    Raises:
        AdbenchError: they are no dictionary of modules.
    """
    from torch import nn

    networks = detector.networks
    if isinstance(networks, Mapping | nn.ModuleDict):
        found = dict(networks.items())
        if all(isinstance(each, nn.Module) for each in found.values()):
            return found
    raise AdbenchError(f"{type(detector).__name__}.networks must be a dictionary of torch modules by name")
