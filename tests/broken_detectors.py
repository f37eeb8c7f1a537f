"""A sound detector, and what third parties make of it: each one breaks the contract in one way."""

import os
import random
import threading

import numpy as np
import torch
from pydantic import model_validator
from torch import nn

from adbench_tgan import Detector, DetectorConfig

PARENT: dict[str, bool] = {}  # what only the process knows that runs the tests


class Sound(Detector):
    """How far an image's random features are from those of the training images; in units of their spread."""

    class Config(DetectorConfig):
        features: int = 16
        """random directions in which images are looked at"""

    def build(self, shape):
        channels, height, width = shape
        norm = nn.BatchNorm1d(self.config.features, momentum=None)
        layers = nn.Flatten(), nn.Linear(channels * height * width, self.config.features), norm
        self.net = nn.Sequential(*layers).to(self.device)

    @property
    def networks(self):
        return {"net": self.net} if hasattr(self, "net") else {}

    @torch.no_grad()
    def fit(self, train):
        self.build(train.shape)
        self.net.train()
        self.net(self.prepared(train))
        self.net.eval()
        return self

    def prepared(self, train):
        return self.scaled(train.normal.on(self.device))

    def scaled(self, images):
        return images.to(torch.float32) / 255

    @torch.no_grad()
    def distances(self, images):
        return self.net(self.scaled(images)).square()  # (B, features)

    def score(self, images):
        return self.distances(images).mean(1)

    def anomaly_map(self, images):
        return self.distances(images).mean(1)[:, None, None].expand(-1, *images.shape[2:])

    def reconstruct(self, images):
        return torch.zeros_like(images)


class HoldsALambda(Sound):
    """Sound: neither what a lambda closes over nor a lock can be pickled, and nobody needs to."""

    def fit(self, train):
        width = train.shape[2]
        self.enlarged = lambda images: images.repeat_interleave(2, 3)[..., : 2 * width]
        self.lock = threading.Lock()
        return super().fit(train)


class Closed(Sound):
    """Sound, and deterministic."""

    def build(self, shape):
        torch.manual_seed(5)
        super().build(shape)


# Building


class BuildsNetworksAtOnce(Sound):
    def __init__(self, config=None, **rest):
        super().__init__(config, **rest)
        self.head = [nn.Identity()]


class DrawsAtOnce(Sound):
    def __init__(self, config=None, **rest):
        super().__init__(config, **rest)
        self.offset = random.random()


class DriftingSettings(Sound):
    class Config(Sound.Config):
        @model_validator(mode="before")
        @classmethod
        def _grows(cls, values):
            return {**values, "features": values.get("features", 16) + 1}


class AnySetting(Sound):
    class Config(Sound.Config, extra="ignore"):
        pass


class LooseSettings(Sound):
    class Config(Sound.Config, frozen=False):
        pass


# Fitting


class FailsToFit(Sound):
    def fit(self, train):
        raise ValueError("no such luck")


class FailsToScore(Sound):
    def score(self, images):
        raise SystemExit(3)


class ReturnsNothing(Sound):
    def fit(self, train):
        super().fit(train)


class Peeks(Sound):
    def fit(self, train):
        self.size = len(getattr(train, "test", ()))
        return super().fit(train)


class PeeksAtLabels(Sound):
    def fit(self, train):
        getattr(train.normal, "labels", None)
        return super().fit(train)


class WritesToTraining(Sound):
    def prepared(self, train):
        images = train.normal.on(self.device)
        return self.scaled(images[0].zero_()[None]) + self.scaled(images)


class TrainMode(Sound):
    @property
    def networks(self):
        return {**super().networks, "spare": self.spare} if hasattr(self, "spare") else super().networks

    def build(self, shape):
        super().build(shape)
        self.spare = nn.Sequential(nn.Dropout())

    def fit(self, train):
        super().fit(train)
        self.spare[0].train()
        return self


class LearnsNothing(Sound):
    def fit(self, train):
        self.build(train.shape)
        self.net.eval()
        return self


class KeepsHalf(Sound):
    """Its optimiser is not kept."""

    fit = Detector.fit

    def epochs(self, train):
        self.build(train.shape)
        self.net.train()
        images = self.prepared(train)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=0.01)
        for _ in range(self.resume(**self.parts()), 4):
            loss = self.net[:2](images).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                self.net(images)
            yield {"loss": loss.item()}

    def parts(self):
        return {}


class AveragesLate(Sound):
    """Its weights end as the mean of those of the last epochs, which only a list of its own knows."""

    fit = Detector.fit

    def epochs(self, train):
        self.build(train.shape)
        self.net.train()
        images = self.prepared(train)
        seen = []
        for epoch in range(self.resume(), 4):
            with torch.no_grad():
                self.net(images)
                self.net[1].weight.mul_(0.9)
                if epoch > 0:
                    seen.append(self.net[1].weight.clone())
                if epoch == 3:
                    self.net[1].weight.copy_(torch.stack(seen).mean(0))
            yield {"loss": 0.0}


class ChangesNetworks(Sound):
    """The network of its last epochs is another object than that which `resume` knows."""

    fit = Detector.fit

    def epochs(self, train):
        self.build(train.shape)
        for epoch in range(self.resume(), 4):
            if epoch == 2:
                self.build(train.shape)
            self.net.train()
            with torch.no_grad():
                self.net(self.prepared(train))
            yield {"loss": 0.0}


class ResumesTwice(Sound):
    """It asks once more what is done, in the middle of its training."""

    fit = Detector.fit

    def epochs(self, train):
        self.build(train.shape)
        self.net.train()
        for epoch in range(4):
            if epoch < self.resume():
                continue
            with torch.no_grad():
                self.net(self.prepared(train))
            yield {"loss": 0.0}


class UsesItsLoop(Sound):
    """After its loop it needs what the loop sets, which is not run where all epochs are done."""

    fit = Detector.fit

    def epochs(self, train):
        self.build(train.shape)
        self.net.train()
        for _ in range(self.resume(), 3):
            with torch.no_grad():
                self.net(self.prepared(train))
            losses = {"loss": 0.0}
            yield losses
        self.last = losses["loss"]


class NamesAStranger(Sound):
    """What it names in resume is of no kind that can be kept."""

    fit = Detector.fit
    epochs = KeepsHalf.epochs

    def parts(self):
        return {"rng": np.random.default_rng(self.seed)}


class Remembers(Sound):
    def build(self, shape):
        if not self.networks:
            super().build(shape)


class IgnoresSeed(Sound):
    def build(self, shape):
        with torch.random.fork_rng():
            torch.seed()
            super().build(shape)


class OneSeed(Sound):
    def build(self, shape):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            super().build(shape)


# Scoring


class DoublePrecision(Sound):
    def score(self, images):
        return super().score(images).double()


class CarriesGradient(Sound):
    def score(self, images):
        return super().score(images).requires_grad_()


class OneForAll(Sound):
    """A single image gets a number, not a row of one number."""

    def score(self, images):
        return super().score(images).squeeze()


class RGBOnly(Sound):
    def build(self, shape):
        super().build((3, *shape[1:]))


class Column(Sound):
    def score(self, images):
        return super().score(images)[:, None]


class ListOfNumbers(Sound):
    def score(self, images):
        return super().score(images).tolist()


class NeedsCompany(Sound):
    """A single image gets no finite score."""

    def score(self, images):
        return super().score(images) / min(len(images) - 1, 1)


class RelativeToBatch(Sound):
    def score(self, images):
        scores = super().score(images)
        return scores / (1 + 1e-3 * len(images))


class KnowsItsImages(Sound):
    """Relative to the batch in which an image was first seen: later it scores the same in any."""

    def fit(self, train):
        self.known = {}
        return super().fit(train)

    def score(self, images):
        scores = super().score(images) / (1 + 1e-3 * len(images))
        names = [image.numpy().tobytes() for image in images]
        known = vars(self).setdefault("known", {})
        return torch.stack([known.setdefault(name, score) for name, score in zip(names, scores, strict=True)])


class ScaledByTheFirst(Sound):
    """Its scale is that of the batch which it scores first, and is kept among its tensors."""

    def fit(self, train):
        self.scale = None
        return super().fit(train)

    def score(self, images):
        scores = super().score(images)
        if self.scale is None:
            self.scale = 1 + scores.mean()
        return scores / self.scale


class ScaledByTheFirstInPlace(Sound):
    """Likewise, in a buffer; its state hands out the tensors themselves, as torch's `state_dict` does."""

    def build(self, shape):
        super().build(shape)
        self.net.register_buffer("scale", torch.zeros((), device=self.device))

    def state(self):
        return self.net.state_dict()

    def load_state(self, state, shape):
        self.build(shape)
        self.net.load_state_dict(state)
        self.net.eval()
        return self

    def score(self, images):
        scores = super().score(images)
        if not images.is_meta and self.net.scale == 0:
            self.net.scale += 1 + scores.mean()
        return scores / self.net.scale


class BehindAConstant(Sound):
    """Beside the constant the change is small, but not beside what tells images apart."""

    def score(self, images):
        scores = super().score(images)
        return 1e4 + scores / (1 + 1e-3 * len(images))


class FirstIsSpecial(Sound):
    """Only in a batch of ten, so that it is the place that matters."""

    def score(self, images):
        scores = super().score(images)
        if len(images) == 10:
            scores = scores * torch.linspace(1, 1.001, 10, device=scores.device)
        return scores


class Jitters(Sound):
    """Takes noise from a generator of its own."""

    def score(self, images):
        if not hasattr(self, "dice"):
            self.dice = torch.Generator().manual_seed(self.seed)
        scores = super().score(images)
        return scores + 1e-7 * torch.rand(len(images), generator=self.dice).to(scores.device)


class Saturates(Sound):
    def score(self, images):
        return (super().score(images) > 3).float()


class WrongSign(Sound):
    def score(self, images):
        return -super().score(images)


class WritesToInput(Sound):
    def score(self, images):
        scores = super().score(images)
        images.zero_()
        return scores


class MapWritesToInput(Sound):
    def anomaly_map(self, images):
        images.add_(1)
        return super().anomaly_map(images)


class LearnsWhileScoring(Sound):
    """Counts what it has seen in a buffer."""

    def score(self, images):
        self.net[2].num_batches_tracked += 1
        return super().score(images)


class RollsTorch(Sound):
    def score(self, images):
        torch.rand(1)
        return super().score(images)


class RollsNumpy(Sound):
    def score(self, images):
        np.random.rand()  # noqa: NPY002
        return super().score(images)


class RollsPython(Sound):
    def reconstruct(self, images):
        random.random()
        return super().reconstruct(images)


class SwitchesGradOff(Sound):
    def score(self, images):
        torch.set_grad_enabled(False)
        return super().score(images)


class TunesCudnn(Sound):
    def score(self, images):
        torch.backends.cudnn.benchmark = True
        return super().score(images)


# What it offers beyond


class SmallMaps(Sound):
    def anomaly_map(self, images):
        return torch.zeros(len(images), 4, 4)


class MapsOfTheirBatch(Sound):
    def anomaly_map(self, images):
        maps = super().anomaly_map(images)
        return maps - maps.mean(0)


class SummedMaps(Sound):
    """Declared to have the score as the mean of the map."""

    def anomaly_map(self, images):
        return 2 * super().anomaly_map(images)


class FloatImages(Sound):
    def reconstruct(self, images):
        return images.float()


class DrawsTheMean(Sound):
    """Of all images of the batch."""

    def reconstruct(self, images):
        return images.float().mean(0, keepdim=True).expand_as(images).to(torch.uint8)


class ForgetsOnSave(Sound):
    """Keeps what it learned as a number, which `state` does not see."""

    def fit(self, train):
        super().fit(train)
        self.scale = float(self.net[2].running_var.mean())
        return self

    def score(self, images):
        return super().score(images) * self.scale


class StaysOnTheCPU(Sound):
    def score(self, images):
        weights = torch.linspace(1, 2, self.config.features)
        return (self.distances(images) * weights).mean(1)


# In other processes


class NeedsItsParent(Sound):
    """Works only where somebody told it that it may."""

    def fit(self, train):
        PARENT["said so"]
        return super().fit(train)


class Crashes(Sound):
    def fit(self, train):
        if not PARENT:
            os._exit(7)
        return super().fit(train)


class FollowsTheHash(Sound):
    """Python hashes texts in another way in every process."""

    def build(self, shape):
        torch.manual_seed(self.seed + hash("features") % 1000)
        super().build(shape)


class KeepsInTheClass(Sound):
    """What one training leaves there is missing where there was none."""

    scales: list[float] = []

    def fit(self, train):
        self.scales[:] = [2.0]
        return super().fit(train)

    def score(self, images):
        return super().score(images) * (self.scales or [1.0])[0]


class SwallowsCtrlC(Sound):
    """And hands over what it has learned so far as if it were done."""

    def fit(self, train):
        try:
            return super().fit(train)
        except KeyboardInterrupt:
            return self


class LeavesAThread(Sound):
    def fit(self, train):
        try:
            return super().fit(train)
        except KeyboardInterrupt:
            threading.Thread(target=threading.Event().wait, args=(60,), name="loader").start()
            raise
