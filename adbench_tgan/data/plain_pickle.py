"""Pickled numpy arrays read as what they are, bytes with a shape, without doing what a pickle may ask for.

The one place that knows pickle, since CIFAR-10 comes in no other form. Three walls: only these opcodes, none of which
can make memory grow beyond the file; only these names, none of which is imported; and behind the names stand-ins of
our own, so that no state that a file dictates ever reaches numpy's C code. Python's own reader, not the one in C: it
looks each opcode up in a table, ours, and reserves no memory for what a file only announces.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = {"b1": np.bool_, "u1": np.uint8, "i1": np.int8, "u2": np.uint16, "i2": np.int16, "u4": np.uint32}
DTYPES |= {"i4": np.int32, "u8": np.uint64, "i8": np.int64, "f4": np.float32, "f8": np.float64}
DIMENSIONS = 8  # of an array, at most; a batch's have two
OPCODES = frozenset(  # without long numbers: as keys they can be chosen so that a dictionary takes for ever
    "PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINFLOAT "
    "STRING SHORT_BINSTRING BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES BINBYTES8 "
    "EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL REDUCE BUILD "
    "BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET".split()
)
NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


class PlainDtype:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: str, *_: Any):
        self.code: Any = code
        self.order: Any = "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype[Any]:
        """The numpy type; a `ValueError` unless it is a plain number."""
        if type(self.code) is not str or self.code not in DTYPES:
            raise ValueError("an array of other things than plain numbers")
        if type(self.order) is not str or self.order not in ("|", "<", ">", "="):
            raise ValueError("an array of an unknown byte order")
        kind: np.dtype[Any] = np.dtype(DTYPES[self.code])
        return kind.newbyteorder(self.order)  # type: ignore[arg-type]


class PlainArray:
    """Stands for ``numpy.ndarray`` and for the function that makes an empty one."""

    def __init__(self, *_: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        """The array; a `ValueError` unless its bytes fill its shape."""
        _, shape, kind, fortran, raw = self.state
        if type(shape) is not tuple or len(shape) > DIMENSIONS:
            raise ValueError(f"an array whose shape is no tuple, or has more than {DIMENSIONS} dimensions")
        if not isinstance(raw, str | bytes) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("an array whose shape or data is not plain")
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        if math.prod(shape) * kind.dtype().itemsize != len(data):
            raise ValueError(f"an array of shape {shape} in {len(data):,} bytes")
        return np.frombuffer(bytearray(data), kind.dtype()).reshape(shape, order="F" if fortran else "C")


def plain_pickle(data: bytes) -> Any:
    """What a pickle of plain values and arrays holds; each array as a `PlainArray`.

    Raises:
        pickle.UnpicklingError: it asks for more than that.
        Exception: it is damaged, which shows in nearly every kind of error.
    """
    return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()


def _texts(keys: list[Any]) -> None:
    if not all(type(key) in (str, bytes) for key in keys):
        raise pickle.UnpicklingError("it asks for keys that are not strings, which is refused")


def _few(arguments: Any) -> None:
    if type(arguments) is not tuple or len(arguments) > 3:
        raise pickle.UnpicklingError("it asks for a call with more than 3 arguments, which is refused")


def _ours(changed: Any) -> None:
    if type(changed) not in (PlainArray, PlainDtype):
        raise pickle.UnpicklingError("it asks to change something other than an array, which is refused")


# How the stack is looked at before an opcode acts on it.
LOOKS: dict[str, Callable[[list[Any]], None]] = {
    "SETITEM": lambda stack: _texts(stack[-2:-1]),
    "SETITEMS": lambda stack: _texts(stack[::2]),
    "DICT": lambda stack: _texts(stack[::2]),
    "REDUCE": lambda stack: _few(stack[-1]),
    "BUILD": lambda stack: _ours(stack[-2]),
}


def _careful(name: str, act: Callable[[Any], None]) -> Callable[[Any], None]:
    """What an opcode does here."""

    def carefully(reader: Any) -> None:
        if name not in OPCODES:
            raise pickle.UnpicklingError(f"it asks for {name}, which is refused")
        LOOKS[name](reader.stack)
        act(reader)

    return act if name in OPCODES and name not in LOOKS else carefully


class _ArraysOnly(pickle._Unpickler):
    """Admits what pickled numpy arrays need, by their old and new names; nothing that a file names is imported.

    A value can be named any number of times, by two bytes each time. So nothing is done to one that takes longer, or
    more memory, with each time: tuples of tuples are hashed nowhere, and a text is encoded once.
    """

    dispatch = {code: _careful(NAMES[code], act) for code, act in pickle._Unpickler.dispatch.items()}
    admitted: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): PlainArray,
        ("numpy", "dtype"): PlainDtype,
        ("numpy.core.multiarray", "_reconstruct"): PlainArray,
        ("numpy._core.multiarray", "_reconstruct"): PlainArray,
    }

    def __init__(self, file: io.BytesIO, **options: Any):
        super().__init__(file, **options)
        self.encoded: dict[str, bytes] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self.latin1
        try:
            return self.admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module[:50]}.{name[:50]}, which is refused") from None

    def latin1(self, text: Any, encoding: Any) -> bytes:
        """Stands for ``_codecs.encode``."""
        if type(text) is not str or type(encoding) is not str or encoding != "latin1":
            raise pickle.UnpicklingError("it asks for another codec than latin1, which is refused")
        if text not in self.encoded:
            self.encoded[text] = text.encode("latin1")
        return self.encoded[text]
