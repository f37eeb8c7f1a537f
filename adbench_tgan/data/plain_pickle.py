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
OPCODES = frozenset(  # without long numbers: as keys they can be chosen so that a dictionary takes for ever
    "PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINFLOAT "
    "STRING SHORT_BINSTRING BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES BINBYTES8 "
    "EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL REDUCE BUILD "
    "PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET".split()
)
EACH_OTHER = slice(None, None, 2)
KEYS = {"SETITEM": slice(-2, -1), "SETITEMS": EACH_OTHER, "DICT": EACH_OTHER}  # where on the stack they lie
DIMENSIONS = 32  # as many as numpy ever allowed everywhere
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
        if any(type(name) is not str for name in (self.code, self.order)):
            raise ValueError("an array of a type without a name")
        if self.code not in DTYPES or self.order not in ("|", "<", ">", "="):
            raise ValueError(f"an array of type {self.code[:20]!r}")
        return np.dtype(DTYPES[self.code]).newbyteorder(self.order)


class PlainArray:
    """Stands for ``numpy.ndarray`` and for the function that makes an empty one."""

    def __init__(self, *_: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        """The array; a `ValueError` unless its bytes fill its shape."""
        _, shape, kind, fortran, raw = self.state
        if not isinstance(raw, str | bytes) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("an array that is not made of bytes")
        if len(shape) > DIMENSIONS:
            raise ValueError(f"an array of {len(shape):,} dimensions")
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        if math.prod(shape) * kind.dtype().itemsize != len(data):
            raise ValueError(f"an array of shape {tuple(shape)} in {len(data):,} bytes")
        return np.frombuffer(bytearray(data), kind.dtype()).reshape(shape, order="F" if fortran else "C")


def plain_pickle(data: bytes) -> Any:
    """What a pickle of plain values and arrays holds; each array as a `PlainArray`.

    Raises:
        pickle.UnpicklingError: it asks for more than that.
        Exception: it is damaged, which shows in nearly every kind of error.
    """
    return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()


def _latin1(text: str, encoding: str) -> bytes:
    if type(encoding) is not str or encoding != "latin1":
        raise pickle.UnpicklingError("it asks for another codec than latin1, which is refused")
    return text.encode("latin1")


def _guarded(name: str, act: Callable[[Any], None]) -> Callable[[Any], None]:
    """What stands for an opcode: `act`, if it is admitted, behind a look at the keys of a dictionary.

    Only texts and numbers are keys, since a nested tuple can take for ever to hash.
    """

    def guarded(reader: Any) -> None:
        if name not in OPCODES:
            raise pickle.UnpicklingError(f"it asks for {name}, which is refused")
        if any(type(key) not in (str, bytes, int) for key in reader.stack[KEYS[name]]):
            raise pickle.UnpicklingError("it asks for a key that is neither a text nor a whole number")
        act(reader)

    return act if name in OPCODES and name not in KEYS else guarded


class _ArraysOnly(pickle._Unpickler):
    """Admits what pickled numpy arrays need, by their old and new names; nothing that a file names is imported."""

    dispatch = {code: _guarded(NAMES[code], act) for code, act in pickle._Unpickler.dispatch.items()}
    admitted: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): PlainArray,
        ("numpy", "dtype"): PlainDtype,
        ("numpy.core.multiarray", "_reconstruct"): PlainArray,
        ("numpy._core.multiarray", "_reconstruct"): PlainArray,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused") from None
