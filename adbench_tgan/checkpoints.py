"""Where a training is kept while it lasts, so that one that was cut short goes on, and ends with the same scores."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from safetensors.torch import load, save
from torch import Tensor

from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import one_line
from adbench_tgan.store import places

if TYPE_CHECKING:
    from adbench_tgan.detector import Detector

SCHEMA: Literal[1] = 1
MERSENNE = 624  # words of the twister's state, numpy's global generator
KERNELS = ("fused", "capturable", "foreach")  # settings of optimisers that a device decides
ROOM, TIMES = 2**30, 8  # a checkpoint has at most so many bytes, and so many times those of the networks
LARGEST_ABOUT = 2**25  # bytes of all that is no tensor; a loss an epoch takes some thirty of them
NOT_KEPT = "its checkpoint could not be saved"
ABOUT = "about it"  # no name of a part: the tensor that holds all that is no tensor, as the bytes of JSON


class Kept(BaseModel):
    """What a checkpoint holds beside its tensors."""

    # A part may hold an infinity, such as the best loss so far.
    model_config = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    key: str  # of the job, and of the code that runs it
    losses: list[dict[str, FiniteFloat]]  # one an epoch
    seconds: FiniteFloat  # spent on them
    parts: dict[str, Any]  # as `packed`
    dice: Any  # as `packed`


class Checkpoint:
    """The training of one job: one file, replaced as a whole after every `every` epochs.

    It holds the networks, the parts that the detector names in `Detector.resume`, the states of all random numbers,
    and the losses so far. Nothing in it is a pickle.
    """

    def __init__(self, path: Path, key: str, every: int | None = None):
        self.path, self.key = path, key
        self.every = every  # None reads what is there, and writes nothing
        self.parts: dict[str, Any] | None = None  # all that training changes, once the detector has named it
        self.losses: list[dict[str, float]] = []  # one an epoch, those of an earlier run too
        self.seconds = 0.0  # that an earlier run spent on them
        self.began = perf_counter()
        self.spent = 0.0  # seconds on keeping it, which are none of training

    def take_up(self, detector: Detector, parts: Mapping[str, Any]) -> int:
        """Bring everything into the state of the last epoch kept; how many epochs that were.

        Raises:
            AdbenchError: what is kept does not fit the detector, or it has called `resume` before.
        """
        if self.parts is not None:
            raise AdbenchError("epochs call resume more than once; call it once, right before the first one")
        self.parts = {f"network {name}": network for name, network in detector.networks.items()} | dict(parts)
        found = self._read(detector)
        if found is None:
            return 0
        kept, tensors = found
        try:
            for name, part in self.parts.items():
                put_back(part, unpacked(kept.parts[name], tensors))
            set_dice(unpacked(kept.dice, tensors), detector.device)
        except Exception as error:  # each kind of part has its own
            reason = one_line(error)
            raise AdbenchError(
                f"{self.path} does not fit this detector: {reason}; delete it, then run again"
            ) from None
        self.losses[:], self.seconds = kept.losses, kept.seconds
        detector.notes.append(f"training was interrupted, and taken up again after epoch {len(self.losses)}")
        return len(self.losses)

    def epoch_ended(self, detector: Detector) -> None:
        """Keep the training if it is time to; that it cannot be kept is a note, no error."""
        if not self.every or len(self.losses) % self.every:
            return
        if self.parts is None:
            note = "no checkpoint was saved: its epochs do not call resume"
        else:
            before = perf_counter()
            note = self._write(detector)
            self.spent += perf_counter() - before
        if note and note not in detector.notes:
            detector.notes.append(note)

    def _write(self, detector: Detector) -> str:
        """Why it could not be written, if so."""
        assert self.parts is not None
        replaced = [
            name
            for name, network in detector.networks.items()
            if self.parts.get(f"network {name}") is not network
        ]
        if replaced:
            return f"{NOT_KEPT}: network {replaced[0]} was replaced after resume was called; train the same object throughout"
        if strangers := [name for name, part in self.parts.items() if not keepable(part)]:
            kind = type(self.parts[strangers[0]])
            return (
                f"{NOT_KEPT}: {strangers[0]}, given to resume, is a {kind.__module__}.{kind.__name__}; "
                "give it tensors, torch.Generators, or objects with state_dict and load_state_dict"
            )
        if behind := [name for name, part in self.parts.items() if is_behind(part)]:
            return (
                f"{NOT_KEPT}: the optimiser {behind[0]}, given to resume, has state for weights that it no longer trains; "
                "change weights in place, or delete them from its state"
            )
        tensors: dict[str, Tensor] = {}
        try:
            kept = Kept(
                key=self.key,
                losses=self.losses,
                parts={name: packed(state_of(part), name, tensors) for name, part in self.parts.items()},
                dice=packed(dice(detector.device), "dice", tensors),
                seconds=self.seconds + perf_counter() - self.began - self.spent,
            )
            data = file_of(kept, tensors)
            if len(data) > (limit := largest(detector)):
                return f"{NOT_KEPT}: it has {len(data):,} bytes, more than the limit of {limit:,}"
            places.replace(self.path, data)
        except Exception as error:  # each kind of part and of store has its own
            return f"{NOT_KEPT}: {getattr(error, 'strerror', None) or one_line(error)}"
        return ""

    def _read(self, detector: Detector) -> tuple[Kept, dict[str, Tensor]] | None:
        """What is kept; None, and a note unless there is nothing, if it cannot be used."""
        try:
            kept, tensors = parts_of(places.read_bounded(self.path, largest(detector)))
            if kept.key != self.key:
                raise ValueError("it belongs to another job, or to other code")
        except FileNotFoundError:
            return None
        except Exception as error:  # it may hold anything
            reason = f"{self.path.name} cannot be used: {one_line(error)}"
            detector.notes.append(f"training started from the beginning: {reason}")
            return None
        return kept, tensors


def largest(detector: Detector) -> int:
    """The bytes that a checkpoint of this detector may have."""
    tensors = [
        each for network in detector.networks.values() for each in (*network.parameters(), *network.buffers())
    ]
    return ROOM + TIMES * sum(tensor.nbytes for tensor in tensors)


def keepable(part: Any) -> bool:
    """Whether a part is of a kind that `state_of` and `put_back` know."""
    known = isinstance(part, Tensor | torch.Generator)
    return known or (hasattr(part, "state_dict") and hasattr(part, "load_state_dict"))


def is_behind(part: Any) -> bool:
    """Whether a part is an optimiser that remembers weights of a layer that was replaced; torch cannot tell its state."""
    if not isinstance(part, torch.optim.Optimizer):
        return False
    return not set(part.state) <= {weight for group in part.param_groups for weight in group["params"]}


def state_of(part: Any) -> Any:
    """What has to be kept of a part: a tensor, a `torch.Generator`, or whatever has `state_dict`."""
    if isinstance(part, Tensor):
        return part
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def put_back(part: Any, state: Any) -> None:
    """Give a part the state that it had."""
    if isinstance(part, Tensor):
        with torch.no_grad():
            part.copy_(state)
    elif isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, torch.optim.Optimizer):
        part.load_state_dict(for_device(part, state))
        lay_out(part)
    else:
        part.load_state_dict(state)


def for_device(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimiser's state with its own choice of kernels: what was kept may come from another kind of device."""
    groups = [
        kept | {name: own[name] for name in KERNELS if name in own}
        for kept, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {**state, "param_groups": groups}


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Lay an optimiser's tensors out as the weights that they belong to, as fused kernels ask for."""
    for weight, own in optimizer.state.items():
        for name, value in own.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                own[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def dice(device: str | torch.device) -> dict[str, Any]:
    """The states of the global generators."""
    _, key, *rest = np.random.get_state()  # noqa: NPY002 (strangers may draw from the global generator)
    on_gpu = torch.device(device).type == "cuda"
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if on_gpu else None,
        "numpy": [torch.from_numpy(np.asarray(key).astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_dice(states: Mapping[str, Any], device: str | torch.device) -> None:
    """Give the global generators their states back."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    key, place, *rest = states["numpy"]
    if not 0 <= place <= len(key) == MERSENNE:
        raise ValueError("numpy's random state is not valid")
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), place, *rest))  # noqa: NPY002
    random.setstate(states["python"])


def packed(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`tree` as JSON; its tensors go into `tensors` under names that begin with `name`."""
    if isinstance(tree, Tensor):
        tensors[name] = tree.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(tree, Mapping):
        # Some schedulers of learning rates ask for a Counter.
        kind = "counter" if isinstance(tree, Counter) else "map"
        return {kind: [[key, packed(value, f"{name}/{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [packed(value, f"{name}/{number}", tensors) for number, value in enumerate(tree)]}
    return tree


def unpacked(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that was `packed`."""
    if not isinstance(plain, dict):
        return plain
    ((kind, inner),) = plain.items()
    if kind == "tensor":
        return tensors[inner]
    if kind in ("map", "counter"):
        pairs = {key: unpacked(value, tensors) for key, value in inner}
        return Counter(pairs) if kind == "counter" else pairs
    return (list if kind == "list" else tuple)(unpacked(value, tensors) for value in inner)


def file_of(kept: Kept, tensors: Mapping[str, Tensor]) -> bytes:
    """All of it: safetensors, behind their hash."""
    text = torch.frombuffer(bytearray(kept.model_dump_json(by_alias=True).encode()), dtype=torch.uint8)
    return sealed(save({**tensors, ABOUT: text}))


def sealed(data: bytes) -> bytes:
    """`data` behind its hash."""
    return hashlib.sha256(data).digest() + data


def parts_of(data: bytes) -> tuple[Kept, dict[str, Tensor]]:
    """What `file_of` put together.

    Raises:
        ValueError: it is damaged.
        Exception: it is something else.
    """
    size = hashlib.sha256().digest_size
    if data[:size] != hashlib.sha256(memoryview(data)[size:]).digest():
        raise ValueError("it is damaged")
    data = data[size:]
    tensors = load(data)
    if tensors[ABOUT].nbytes > LARGEST_ABOUT:
        raise ValueError(f"its description has more than {LARGEST_ABOUT:,} bytes")
    return Kept.model_validate_json(tensors.pop(ABOUT).numpy().tobytes()), tensors
