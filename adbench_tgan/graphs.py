"""CUDA graphs: a function of tensors is launched as one, instead of kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

WARMUP = 3  # calls that run eagerly first, so that libraries and optimisers have allocated what they need
Outputs = TypeVar("Outputs")


class Captured(Generic[Outputs]):
    """`function` of tensors, or of lists and tuples of tensors; on a GPU captured in a CUDA graph and replayed.

    On the CPU every call is a plain call. On a GPU so are the first `WARMUP` ones, and they count: no call is lost,
    repeated or undone. The default generator moves on by as much in a replay as in a plain call, so that random
    numbers are those of plain calls. Inputs of another shape than the captured ones get a plain call.

    `function` must not wait for the device, nor branch on what a tensor holds. What it returns is detached, and
    overwritten by the next call. If it cannot be captured, every call is plain, and `notes` says so.
    """

    def __init__(
        self,
        function: Callable[..., Outputs],
        device: str | torch.device,
        notes: list[str],
        *,
        plain: bool = False,
    ):
        self.function = function
        self.device = torch.device(device)
        self.notes = notes
        self.plain = plain or self.device.type != "cuda"
        self.stream = None if self.plain else _stream(self.device)
        self.warmup = WARMUP
        self.recording: Recording[Outputs] | None = None

    def __call__(self, *inputs: Any) -> Outputs:
        """What `function` returns, detached."""
        if self.plain:
            return _detached(self.function(*inputs))
        with torch.cuda.device(self.device):
            if self.warmup:
                self.warmup -= 1
                return self._aside(inputs)
            if self.recording is None:
                self.recording = self._record(inputs)
            if self.recording is None or not self.recording.fits(inputs):
                return _detached(self.function(*inputs))
            return self.recording.replay(inputs)

    def _aside(self, inputs: tuple[Any, ...]) -> Outputs:
        """A plain call on the stream that will be captured, as CUDA asks for."""
        assert self.stream is not None
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            outputs = _detached(self.function(*inputs))
        torch.cuda.current_stream().wait_stream(self.stream)
        return outputs

    def _record(self, inputs: tuple[Any, ...]) -> Recording[Outputs] | None:
        """Capture a call, which computes nothing yet; None, and a note, if that fails."""
        stream = torch.cuda.current_stream()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        dice = generator.clone_state()
        held = tree_map_only(Tensor, torch.clone, inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                outputs = _detached(self.function(*held))
        except RuntimeError as error:
            torch.cuda.set_stream(stream)  # a failed capture leaves neither this ...
            generator.graphsafe_set_state(dice)  # ... nor this as it was
            self.plain = True
            note = f"no CUDA graph, steps run one kernel at a time: {_cause(error)}"
            if note not in self.notes:
                self.notes.append(note)
            return None
        return Recording(graph, held, outputs)


@dataclass(frozen=True)
class Recording(Generic[Outputs]):
    """A captured call: its graph, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Any, ...]
    outputs: Outputs

    def fits(self, inputs: tuple[Any, ...]) -> bool:
        """Whether `inputs` can take the place of the captured ones."""
        own, others = tree_leaves(self.inputs), tree_leaves(inputs)
        return [_kind(leaf) for leaf in own] == [_kind(leaf) for leaf in others]

    def replay(self, inputs: tuple[Any, ...]) -> Outputs:
        """Run the graph on `inputs`."""
        for own, other in zip(tree_leaves(self.inputs), tree_leaves(inputs), strict=True):
            if isinstance(own, Tensor):
                own.copy_(other)
        self.graph.replay()
        return self.outputs


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: libraries keep a workspace for each stream that they have seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _kind(leaf: object) -> object:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf


def _detached(outputs: Outputs) -> Outputs:
    found: Outputs = tree_map_only(Tensor, Tensor.detach, outputs)
    return found


def _cause(error: BaseException) -> str:
    """The first line of what went wrong first."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
