"""Image files: decoded by one documented rule, and kept while memory lasts."""

from __future__ import annotations

import errno
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from adbench_tgan.data.samples import Pixels
from adbench_tgan.errors import DataError
from adbench_tgan.machine import cores
from adbench_tgan.store.drafts import TAKEN

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
STARTS = {"PNG": (b"\x89PNG",), "JPEG": (b"\xff\xd8\xff",), "BMP": (b"BM",), "TIFF": TIFF_STARTS}  # of files
FORMATS = tuple(STARTS)
SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
PLAIN = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
BITS, PHOTOMETRIC, FILL_ORDER = 258, 262, 266  # tags of a TIFF file
ORIENTATION, PLANAR, SAMPLE_FORMAT = 274, 284, 339
UNTURNED = {  # what takes back Pillow's turning of a TIFF, by the orientation that it notes
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
RESAVE = "replace it with an 8- or 16-bit PNG without transparency"
BUDGET = 2**31  # bytes of decoded images kept
AHEAD, COMING = 2**28, 64  # bytes, and number, of images that are decoded before they are asked for


def decode(path: Path) -> Pixels:
    """The image at `path` as RGB: uint8 (3, H, W).

    The same pixel value always gives the same result; nothing is scaled by what else is in the image.

    * grey, 1 or 8 bits: repeated three times
    * palette, CMYK, YCbCr: converted to RGB
    * an alpha channel or a transparent colour: composited over black
    * 16-bit grey (Pillow's modes I;16 and I, range 0..65535): divided by 257 and rounded, repeated
    * floating point (mode F, range [0, 1]): times 255 and rounded, repeated
    * 16-bit colour: the high byte, as Pillow reads it

    Refused is what Pillow would misread: see `_check_meaning`.
    The first page of a file with several is read. A rotation noted in EXIF or in a TIFF's tags is not applied.

    Raises:
        DataError: the file is missing, damaged, too large, of another format or out of range.
    """
    return _read(path, _rgb)


def decode_mask(path: Path) -> Pixels:
    """The mask at `path` as uint8 (H, W): 1 where any channel is above 0, over black where transparent.

    Raises:
        DataError: as `decode`.
    """
    return _read(path, _defect)


def not_found(dataset: str, root: Path, layout: str) -> DataError:
    """The error for a dataset that is not below `root`; `layout` says what was looked for."""
    remedy = "name the folder that holds it with --data-root or $ADBENCH_DATA"
    return DataError(f"{root} holds no {layout}; {remedy}, or run 'adbench data fetch {dataset}'")


def located(
    dataset: str, root: Path, name: str, mark: str, *, fetch: bool, download: Callable[[Path], object]
) -> Path:
    """The folder `name` in `root` or in `root/dataset`, or `root` being that folder itself, which holds the file `mark`.

    Raises:
        DataError: it is not there, and is not to be downloaded or could not be.
    """
    for folder in (root / name, root / dataset / name):
        if folder.is_dir():
            return folder
    if (root / mark).is_file():
        return root
    if not fetch:
        raise not_found(dataset, root, f"{name} or {dataset}/{name}")
    return fetch_folder(root, name, download)


def fetch_folder(root: Path, name: str, download: Callable[[Path], object]) -> Path:
    """Let `download` make a folder `name` in a temporary place, then move it into `root`: whole or not at all.

    A `root` that was not there is made, and stays only if that succeeds.

    Raises:
        DataError: the download failed, or would come to nothing since a folder of that name is there.
    """
    if (root / name).is_dir() and any((root / name).iterdir()):
        raise DataError(f"{root / name} is incomplete; remove it and fetch the data again")
    made: list[Path] = []
    try:
        made += [folder for folder in (root, *root.parents) if not folder.exists()]
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as place:
            download(Path(place))
            return moved(Path(place, name), root / name)
    except Exception as error:  # a network, an archive and a disk fail in many ways
        reason = f"{type(error).__name__}: {error}"
        page = "get it from its source, which 'adbench list datasets --json' names,"
        remedy = f"try again, or {page} and give its folder with --data-root or $ADBENCH_DATA"
        text = f"{name} is not in {root} and could not be downloaded ({reason}); {remedy}"
        raise DataError(text) from None
    finally:
        for folder in made:  # only an empty one goes: a mistyped root leaves nothing behind
            with suppress(OSError):
                folder.rmdir()


def moved(folder: Path, target: Path) -> Path:
    """Where a folder is once it was moved to `target`, or another run was faster and moved its own there.

    Raises:
        OSError: it cannot be moved.
    """
    try:
        return folder.rename(target)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        return target


class Cache:
    """Keeps decoded images while `budget` bytes last, so that each is decoded once.

    When they run out the images of other groups are dropped; those of the group at hand are kept, and what
    does not fit beside them is decoded at every reading.
    """

    def __init__(self, budget: int = BUDGET):
        self._budget, self._used = budget, 0
        self._kept: dict[str, dict[Path, Pixels]] = {}
        self._ahead: dict[Path, Pixels] = {}

    def read(
        self,
        path: Path,
        group: str = "",
        *,
        decoder: Callable[[Path], Pixels] = decode,
        coming: Sequence[Path] = (),
    ) -> Pixels:
        """The image at `path`; not to be written to. The images `coming` are likely to be asked for next.

        Some of these are decoded at the same time, on all cores.
        """
        images = self._kept.setdefault(group, {})
        if path in images:
            return images[path]
        image = self._ahead.pop(path, None)
        if image is None:
            image = decoder(path)
            if coming and coming[0] not in images and coming[0] not in self._ahead:
                count = AHEAD // max(image.nbytes, 1)
                self._ahead = _side_by_side([each for each in coming if each not in images][:count])
        if self._used + image.nbytes > self._budget and len(self._kept) > 1:
            self._kept = {group: images}
            self._used = sum(kept.nbytes for kept in images.values())
        if self._used + image.nbytes <= self._budget:
            images[path] = image
            self._used += image.nbytes
        return image

    def one_of(self, paths: Sequence[Path], index: int, group: str = "") -> Pixels:
        """Image `index` of some that are mostly asked for one after another; not to be written to."""
        return self.read(paths[index], group, coming=paths[index + 1 : index + 1 + COMING])

    def clear(self) -> None:
        """Keep none any longer."""
        self._kept, self._ahead, self._used = {}, {}, 0


@contextmanager
def _bombs_refused() -> Iterator[None]:
    """Let an image of too many pixels be an error, in all threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _side_by_side(paths: Sequence[Path]) -> dict[Path, Pixels]:
    """The images that can be decoded, by path; each of the others fails when it is asked for."""

    def attempt(path: Path) -> Pixels | None:
        with suppress(DataError):
            return _decoded(path, _rgb)
        return None

    with _bombs_refused(), ThreadPoolExecutor(cores()) as threads:
        found = zip(paths, threads.map(attempt, paths), strict=True)
        return {path: image for path, image in found if image is not None}


def _read(path: Path, convert: Callable[[Image.Image], Pixels]) -> Pixels:
    with _bombs_refused():
        return _decoded(path, convert)


def _decoded(path: Path, convert: Callable[[Image.Image], Pixels]) -> Pixels:
    try:
        only_regular(path)  # to open a pipe would wait for ever
        # A file, not its path: given a path Pillow maps some TIFFs into memory, and those that are to be
        # turned by 90 degrees with width and height exchanged.
        with path.open("rb") as file, _identified(file) as image:
            raw = " ".join(str(tile[3]) for tile in image.tile)  # which loading forgets
            orientation = image.getexif().get(ORIENTATION, 1) if isinstance(image, TiffImageFile) else 1
            image.load()
            _check_meaning(image, raw)
            return convert(_unturned(image, orientation))
    except Exception as error:  # damaged files raise nearly every kind of error in Pillow
        reason = _reason(path, error)
        remedy = RESAVE if isinstance(error, _OtherKindError) else "replace or remove it"
        raise DataError(f"{path} cannot be read as an image ({reason}); {remedy}") from None


def _identified(file: BinaryIO) -> ImageFile.ImageFile:
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(4)
        for name in STARTS:
            if start.startswith(STARTS[name]):
                reason = f"a {name} that is damaged or of a kind that is not supported"
                raise _OtherKindError(reason) from None
        raise


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return (error.strerror or str(error)).lower()
    if path.stat().st_size == 0:
        return "empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not a PNG, JPEG, BMP or TIFF image"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels"
    if isinstance(error, _UnsuitableError):
        return str(error)
    return "truncated file" if "truncated" in str(error).lower() else f"corrupt file: {error}"


class _UnsuitableError(Exception):
    """The file is sound, but its values have no documented conversion."""


class _OtherKindError(_UnsuitableError):
    """Of a kind that Pillow does not know, or reads without a word as other values than it means."""


def _check_meaning(image: Image.Image, raw: str) -> None:
    """Raise `_OtherKindError` for what Pillow reads without a word as something else."""
    if image.format == "PNG" and "transparency" in image.info:
        if "16" in raw:
            raise _OtherKindError("16 bits with a transparent colour")
        if raw in ("1", "L;2", "L;4"):  # the pixels are scaled to 8 bits, the colour is not
            raise _OtherKindError("grey of less than 8 bits with a transparent colour")
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        bits = max(tags.get(BITS, (1,)))
        if 8 < bits < 16:
            raise _OtherKindError(f"{bits} bits a sample, not scaled to 16")
        plain = bits == 8 and tags.get(PHOTOMETRIC) != 0 and tags.get(FILL_ORDER) != 2
        if tags.get(PLANAR) == 2 and image.info["compression"] == "raw" and not plain:  # taken for plain ones
            raise _OtherKindError("uncompressed separate planes of other than plain 8 bits")
        if tags.get(PHOTOMETRIC) == 0 and image.mode in (*SIXTEEN_BITS, "F"):
            raise _OtherKindError("WhiteIsZero of more than 8 bits")
        if image.mode in PLAIN and 2 in np.ravel(tags.get(SAMPLE_FORMAT, 1)):
            raise _OtherKindError("signed 8-bit values")


def _unturned(image: Image.Image, orientation: int) -> Image.Image:
    """The image as it is stored: Pillow turns a TIFF while loading it, as no other format."""
    method = UNTURNED.get(orientation)
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image) -> Pixels:
    if image.mode in SIXTEEN_BITS:
        return _repeated((_sixteen_bits(image) + 128) // 257)
    if image.mode == "F":
        return _repeated(np.rint(_unit_range(image) * 255))
    return np.asarray(_colours(image)).transpose(2, 0, 1).copy()


def _defect(image: Image.Image) -> Pixels:
    if image.mode in SIXTEEN_BITS:
        return (_sixteen_bits(image) > 0).astype(np.uint8)
    if image.mode == "F":
        return (_unit_range(image) > 0).astype(np.uint8)
    red, green, blue = np.moveaxis(np.asarray(_colours(image)), 2, 0)
    defect: Pixels = ((red | green | blue) > 0).astype(np.uint8)  # ten times as fast as their maximum
    return defect


def _colours(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image).convert("RGB")
    if image.mode not in PLAIN:
        raise _UnsuitableError(f"pixels of Pillow's mode {image.mode} are not supported")
    return image.convert("RGB")


def _sixteen_bits(image: Image.Image) -> NDArray[np.int64]:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise _UnsuitableError(f"values {values.min()} to {values.max()} are not within 0 to 65535")
    return values


def _unit_range(image: Image.Image) -> NDArray[np.float64]:
    values = np.asarray(image).astype(np.float64)
    if not ((values >= 0) & (values <= 1)).all():  # false for NaN too
        raise _UnsuitableError(
            f"values {values.min():g} to {values.max():g} are not finite and within 0 to 1"
        )
    return values


def _repeated(grey: NDArray[np.int64] | NDArray[np.float64]) -> Pixels:
    return np.repeat(grey.astype(np.uint8)[None], 3, axis=0)


def only_regular(path: Path, largest: int | None = None) -> None:
    """Raise unless `path` is a file, or a link to one: not a pipe, a device or a socket.

    Raises:
        OSError: it is missing, is something else, or has more than `largest` bytes.
    """
    facts = path.stat()
    mode = facts.st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if largest is not None and facts.st_size > largest:
        raise OSError(errno.EFBIG, f"it has more than {largest:,} bytes")


def reason_of(error: Exception) -> str:
    """What an error says, without the path that an `OSError` repeats; its type when it says nothing."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
