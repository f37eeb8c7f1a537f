"""Every conversion of an image file, and every kind of file that must be refused."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from make_data import picture, save
from PIL import Image

from adbench_tgan.data import files
from adbench_tgan.data.contents import list_folders, list_images
from adbench_tgan.data.files import Cache, decode, decode_mask, fetch_folder
from adbench_tgan.errors import DataError


def write(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def rgb(path: Path) -> list[list[int]]:
    """The pixels of a decoded image, row by row, as [r, g, b]."""
    pixels = decode(path)
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] == 3
    assert pixels.flags.writeable  # torch.from_numpy warns of arrays that are not
    return pixels.reshape(3, -1).T.tolist()


def refused(path: Path, reader=decode, remedy: str = "replace or remove it") -> str:
    """The reason given for refusing a file, after checking the message's form."""
    with pytest.raises(DataError) as caught:
        reader(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path} cannot be read as an image (")
    assert message.endswith(f"); {remedy}")
    return message.removeprefix(f"{path} cannot be read as an image (").removesuffix(f"); {remedy}")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_rgb_is_kept_channel_first(tmp_path, suffix):
    pixels = picture(1, height=5, width=7)
    got = decode(save(tmp_path / f"a.{suffix}", pixels))
    assert got.shape == (3, 5, 7)
    assert (got == pixels.transpose(2, 0, 1)).all()


def test_jpeg_is_close(tmp_path):
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    got = decode(write(tmp_path / "a.jpg", Image.fromarray(pixels), quality=100)).astype(int)
    assert np.abs(got - np.array([200, 100, 50])[:, None, None]).max() <= 3


def test_grey_is_repeated(tmp_path):
    assert rgb(save(tmp_path / "a.png", np.array([[0, 77, 255]], np.uint8))) == [[0] * 3, [77] * 3, [255] * 3]


def test_one_bit_becomes_black_and_white(tmp_path):
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert rgb(write(tmp_path / "a.png", image)) == [[0, 0, 0], [255, 255, 255]]


def test_palette_gives_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert rgb(write(tmp_path / "a.png", image)) == [[10, 20, 30], [200, 100, 50]]


def test_transparent_palette_colour_becomes_black(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert rgb(write(tmp_path / "a.png", image, transparency=1)) == [[10, 20, 30], [0, 0, 0]]


def test_alpha_is_composited_over_black(tmp_path):
    image = Image.fromarray(
        np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8)
    )
    assert rgb(write(tmp_path / "a.png", image)) == [[200, 100, 50], [0, 0, 0], [40, 20, 10]]


def test_grey_alpha_is_composited_over_black(tmp_path):
    image = Image.new("LA", (2, 1))
    image.putdata([(200, 255), (200, 51)])
    assert rgb(write(tmp_path / "a.png", image)) == [[200] * 3, [40] * 3]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_grey_is_divided_by_257_and_rounded(tmp_path, suffix):
    values = np.array([[0, 128, 129, 257, 300, 32896, 65535]], np.uint16)
    path = write(tmp_path / f"a.{suffix}", Image.fromarray(values))
    assert rgb(path) == [[v] * 3 for v in (0, 0, 1, 1, 1, 128, 255)]


def tiff(
    path: Path, *, order: str, bits: int, values: list[int], planes: int = 1, **tags: int | list[int]
) -> Path:
    """A TIFF of one row written by hand, of kinds that Pillow does not write: `values` of each plane in turn.

    `tags` ("t262") are set over those of plain grey.
    """
    pixels = struct.pack(f"{order}{len(values)}{ {8: 'B', 16: 'H', 32: 'I', 64: 'Q'}[bits] }", *values)
    size = len(pixels) // planes
    offsets = [8 + plane * size for plane in range(planes)]
    fields = {256: len(values) // planes, 257: 1, 258: [bits] * planes, 259: 1, 262: 1}
    fields |= {273: offsets, 277: planes, 278: 1, 279: [size] * planes}
    fields |= {int(name[1:]): value for name, value in tags.items()}
    table, beside = b"", b""
    for tag, value in sorted(fields.items()):
        shorts = np.array(value, f"{order}u2", ndmin=1).tobytes()
        if len(shorts) > 4:
            place = 8 + len(pixels) + len(beside)
            beside, shorts = beside + shorts, struct.pack(f"{order}I", place)
        table += struct.pack(f"{order}HHI", tag, 3, np.size(value)) + shorts.ljust(4, b"\0")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(pixels + beside))
    path.write_bytes(head + pixels + beside + struct.pack(f"{order}H", len(fields)) + table + bytes(4))
    return path


def test_big_endian_sixteen_bit_grey(tmp_path):
    path = tiff(tmp_path / "a.tiff", order=">", bits=16, values=[257, 65535])
    assert Image.open(path).mode == "I;16B"
    assert rgb(path) == [[1] * 3, [255] * 3]


RESAVE = "replace it with an 8- or 16-bit PNG without transparency"


@pytest.mark.parametrize("reader", [decode, decode_mask])
@pytest.mark.parametrize(
    ("bits", "kind", "values", "reason"),
    [
        (16, 1, [0, 65535], "WhiteIsZero of more than 8 bits"),
        (32, 3, [0, 0x3F800000], "WhiteIsZero of more than 8 bits"),  # 0.0 and 1.0
        (8, 2, [200, 255], "signed 8-bit values"),  # -56 and -1
    ],
)
def test_a_tiff_that_would_be_misread_is_refused(tmp_path, reader, bits, kind, values, reason):
    photometric = int(reason.startswith("signed"))
    path = tmp_path / "a.tiff"
    tiff(path, order="<", bits=bits, values=values, t262=photometric, t339=kind)
    assert refused(path, reader, RESAVE) == reason


@pytest.mark.parametrize("reader", [decode, decode_mask])
def test_a_tiff_of_twelve_bits_is_refused(tmp_path, reader):
    """Pillow gives 0 to 4095, which would come out nearly black."""
    path = tiff(tmp_path / "a.tiff", order="<", bits=8, values=[255] * 3, t256=2, t258=12)
    assert np.asarray(Image.open(path)).tolist() == [[4095, 4095]]
    assert refused(path, reader, RESAVE) == "12 bits a sample, not scaled to 16"


@pytest.mark.parametrize("reader", [decode, decode_mask])
@pytest.mark.parametrize(("bits", "planes", "tags"), [(16, 3, {"t262": 2}), (8, 1, {"t262": 0})])
def test_separate_planes_that_would_be_misread_are_refused(tmp_path, reader, bits, planes, tags):
    """Of 16 bits Pillow takes every byte for a value; that white is at zero it forgets."""
    path = tmp_path / "a.tiff"
    tiff(path, order="<", bits=bits, values=[0x81] * 3 * planes, planes=planes, t284=2, **tags)
    Image.open(path).load()  # without a word
    assert refused(path, reader, RESAVE) == "uncompressed separate planes of other than plain 8 bits"


def test_separate_planes_of_eight_bits_are_read(tmp_path):
    path = tiff(tmp_path / "a.tiff", order="<", bits=8, values=[1, 2, 3], planes=3, t262=2, t284=2)
    assert rgb(path) == [[1, 2, 3]]


def test_eight_bits_may_be_white_at_zero(tmp_path):
    path = tiff(tmp_path / "a.tiff", order="<", bits=8, values=[0, 55], t262=0)
    assert rgb(path) == [[255] * 3, [200] * 3]


def png(
    path: Path, *, side: int, bits: int, kind: int, row: bytes, transparent: tuple[int, ...] = ()
) -> Path:
    """A PNG written by hand, of kinds that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(row))
    if transparent:
        header += chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
    return path


def test_sixteen_bit_colour_keeps_the_high_byte(tmp_path):
    row = b"\0" + struct.pack(">3H", 0x01FF, 0x80FF, 0xFFFF)
    assert rgb(png(tmp_path / "a.png", side=1, bits=16, kind=2, row=row)) == [[1, 128, 255]]


@pytest.mark.parametrize("reader", [decode, decode_mask])
@pytest.mark.parametrize(("kind", "colour"), [(0, (65535,)), (2, (65535, 256, 7))])
def test_a_transparent_colour_of_sixteen_bits_is_refused(tmp_path, reader, kind, colour):
    row = b"\0" + struct.pack(f">{len(colour)}H", *colour)
    path = png(tmp_path / "a.png", side=1, bits=16, kind=kind, row=row, transparent=colour)
    assert refused(path, reader, RESAVE) == "16 bits with a transparent colour"


@pytest.mark.parametrize("reader", [decode, decode_mask])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_grey_of_few_bits_is_refused(tmp_path, reader, bits):
    """Pillow scales the pixels to 8 bits and not the colour."""
    path = png(tmp_path / "a.png", side=1, bits=bits, kind=0, row=b"\0\xff", transparent=(2**bits - 1,))
    assert refused(path, reader, RESAVE) == "grey of less than 8 bits with a transparent colour"


@pytest.mark.parametrize(("kind", "colour"), [(0, (9,)), (2, (9, 8, 7))])
def test_a_transparent_colour_of_eight_bits_becomes_black(tmp_path, kind, colour):
    row = b"\0" + bytes(colour)
    path = png(tmp_path / "a.png", side=1, bits=8, kind=kind, row=row, transparent=colour)
    assert rgb(path) == [[0] * 3]


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path):
    """No scaling by the image's own maximum."""
    path = write(tmp_path / "a.png", Image.fromarray(np.full((4, 4), 2570, np.uint16)))
    assert np.unique(decode(path)).tolist() == [10]


def test_thirty_two_bit_integers_count_as_sixteen(tmp_path):
    path = write(tmp_path / "a.tiff", Image.fromarray(np.array([[0, 65535]], np.int32)))
    assert Image.open(path).mode == "I"
    assert rgb(path) == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_out_of_range_are_refused(tmp_path, value):
    path = write(tmp_path / "a.tiff", Image.fromarray(np.array([[5, value]], np.int32)))
    low, high = sorted([5, value])
    assert refused(path) == f"values {low} to {high} are not within 0 to 65535"


def test_float_is_multiplied_by_255(tmp_path):
    path = write(tmp_path / "a.tiff", Image.fromarray(np.array([[0, 0.1, 0.5, 1]], np.float32)))
    assert rgb(path) == [[v] * 3 for v in (0, 26, 128, 255)]


@pytest.mark.parametrize("value", [-0.5, 1.5, np.inf, np.nan])
def test_floats_out_of_range_are_refused(tmp_path, value):
    path = write(tmp_path / "a.tiff", Image.fromarray(np.array([[0.25, value]], np.float32)))
    assert refused(path).endswith("are not finite and within 0 to 1")
    assert refused(path, decode_mask).endswith("are not finite and within 0 to 1")


def test_cmyk_is_converted(tmp_path):
    path = write(tmp_path / "a.tiff", Image.new("CMYK", (1, 1), (0, 255, 255, 0)))
    assert rgb(path) == [[255, 0, 0]]


def test_lab_is_refused(tmp_path):
    assert "mode LAB" in refused(write(tmp_path / "a.tiff", Image.new("LAB", (2, 2))))


def test_first_page_is_read(tmp_path):
    pages = [Image.new("L", (1, 1), 7), Image.new("L", (1, 1), 9)]
    assert rgb(write(tmp_path / "a.tiff", pages[0], save_all=True, append_images=pages[1:])) == [[7] * 3]


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}], ids=["raw", "lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tiff", "png", "jpg"])
def test_a_noted_rotation_is_not_applied(tmp_path, suffix, orientation, options):
    """Not to masks either, so that a mask without the note lies where its image's defect does."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 255  # no two ways of turning it look the same
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = orientation
    path = write(tmp_path / f"a.{suffix}", image, exif=exif, **(options if suffix == "tiff" else {}))
    assert Image.open(path).getexif()[274] == orientation
    assert (decode(path) == pixels.transpose(2, 0, 1)).all()
    assert (decode_mask(path) == pixels[..., 0] // 255).all()


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_deep_values_are_not_turned_either(tmp_path, kind):
    image = Image.fromarray(np.array([[1, 0], [0, 0], [1, 1]], kind))
    assert decode_mask(write(tmp_path / "a.tiff", image, tiffinfo={274: 6})).tolist() == [
        [1, 0],
        [0, 0],
        [1, 1],
    ]


def test_an_image_of_one_pixel_is_writeable(tmp_path):
    assert rgb(save(tmp_path / "a.png", np.array([[[1, 2, 3]]], np.uint8))) == [[1, 2, 3]]


def test_masks_are_one_where_any_channel_is(tmp_path):
    grey = save(tmp_path / "grey.png", np.array([[0, 1, 255]], np.uint8))
    colour = save(tmp_path / "colour.png", np.array([[[0, 0, 0], [0, 0, 9], [1, 0, 0]]], np.uint8))
    deep = write(tmp_path / "deep.png", Image.fromarray(np.array([[0, 1, 65535]], np.uint16)))
    real = write(tmp_path / "real.tiff", Image.fromarray(np.array([[0, 0.001, 1]], np.float32)))
    opaque = Image.fromarray(np.array([[[0, 0, 0, 255], [9, 0, 0, 255], [0, 9, 0, 255]]], np.uint8))
    for path in (grey, colour, deep, real, write(tmp_path / "alpha.png", opaque)):
        mask = decode_mask(path)
        assert mask.dtype == np.uint8
        assert mask.tolist() == [[0, 1, 1]], path


def test_missing_file(tmp_path):
    assert refused(tmp_path / "x.png") == "no such file or directory"
    assert refused(tmp_path / "x.png", decode_mask) == "no such file or directory"


def test_broken_link(tmp_path):
    (tmp_path / "x.png").symlink_to(tmp_path / "gone.png")
    assert list_images(tmp_path) == [tmp_path / "x.png"]  # not passed over in silence
    assert refused(tmp_path / "x.png") == "no such file or directory"


def test_a_folder_is_no_image(tmp_path):
    assert refused(tmp_path) == "is a directory"


def test_empty_file(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    assert refused(tmp_path / "x.png") == "empty file"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff"])
def test_truncated_file(tmp_path, suffix):
    path = save(tmp_path / f"x.{suffix}", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refused(path) == "truncated file"


def test_damaged_checksum(tmp_path):
    path = save(tmp_path / "x.png", picture(0))
    data = bytearray(path.read_bytes())
    data[data.index(b"IHDR") + 17] ^= 255  # the header's checksum
    path.write_bytes(data)
    assert refused(path, remedy=RESAVE) == unsupported("PNG")


def test_text_named_png(tmp_path):
    (tmp_path / "x.png").write_text("not an image")
    assert refused(tmp_path / "x.png") == "not a PNG, JPEG, BMP or TIFF image"


def test_other_formats_are_refused_by_content(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.gif")
    path = (tmp_path / "x.gif").rename(tmp_path / "x.png")
    assert refused(path) == "not a PNG, JPEG, BMP or TIFF image"


def unsupported(name: str) -> str:
    return f"a {name} that is damaged or of a kind that is not supported"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("bits", "planes", "tags"),
    [
        (64, 1, {"t339": 3}),  # grey of floats
        (16, 1, {"t339": 3}),
        (32, 3, {"t262": 2, "t339": [3] * 3}),  # colour of floats
        (16, 2, {"t338": 2}),  # grey and alpha
    ],
)
def test_a_tiff_of_an_unsupported_kind_is_called_one(tmp_path, order, bits, planes, tags):
    path = tmp_path / "a.png"  # whatever its name
    tiff(path, order=order, bits=bits, values=[0] * planes, planes=planes, **tags)
    assert refused(path, remedy=RESAVE) == unsupported("TIFF")


@pytest.mark.parametrize("name", ["PNG", "BMP"])
def test_a_file_that_breaks_off_in_its_header_is_called_by_its_format(tmp_path, name):
    Image.new("RGB", (4, 4)).save(tmp_path / "whole", format=name)
    path = tmp_path / "a.tiff"
    path.write_bytes((tmp_path / "whole").read_bytes()[:8])
    assert refused(path, remedy=RESAVE) == unsupported(name)


@pytest.mark.parametrize("side", [10_000, 30_000])  # Pillow warns of the first and refuses the second
def test_bomb(tmp_path, side):
    path = png(tmp_path / "x.png", side=side, bits=8, kind=0, row=b"")
    assert refused(path) == f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"


def test_a_name_with_a_line_break_stays_one_line(tmp_path):
    (tmp_path / "a\nb.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a b\.png cannot be read"):
        decode(tmp_path / "a\nb.png")


def test_images_are_listed_by_name_and_suffix(tmp_path):
    for name in (
        "b.PNG",
        "a.Jpeg",
        "10.tif",
        "9.bmp",
        ".hidden.png",
        "._mac.png",
        "notes.txt",
        "it's ü\".jpg",
    ):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / ".git").mkdir()
    names = [path.name for path in list_images(tmp_path)]
    assert names == ["10.tif", "9.bmp", "a.Jpeg", "b.PNG", "it's ü\".jpg"]
    assert [path.name for path in list_folders(tmp_path)] == ["folder.png"]


def test_listing_errors_name_the_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    remedy = "add images or remove the folder, or name another folder with --data-root"
    with pytest.raises(DataError, match=rf"/empty holds no PNG, JPEG, BMP or TIFF image; {remedy}$"):
        list_images(tmp_path / "empty")
    with pytest.raises(DataError, match=r"/gone cannot be listed \(No such file or directory\)"):
        list_images(tmp_path / "gone")
    (tmp_path / "odd").mkdir()
    Path(str(tmp_path / "odd"), "\udcff.png").touch()
    with pytest.raises(DataError, match=r"odd/\\udcff\.png has a name that is not valid Unicode; rename it"):
        list_images(tmp_path / "odd")


def test_cache_reads_once_while_the_budget_lasts():
    asked = []

    def decoder(path: Path) -> np.ndarray:
        asked.append(path.name)
        return np.zeros(10, np.uint8)

    cache = Cache(budget=25)
    for name in "aabbccc":
        cache.read(Path(name), decoder=decoder)
    assert "".join(asked) == "abccc"  # a third image does not fit, the first two stay
    asked.clear()
    for name in "dab":
        cache.read(Path(name), "other", decoder=decoder)  # the first group makes room
    cache.read(Path("d"), "other", decoder=decoder)
    cache.read(Path("a"), "other", decoder=decoder)
    assert "".join(asked) == "dab"


def counting(monkeypatch, decoded):
    """Let every decoding be written down."""
    real = files._decoded
    monkeypatch.setattr(files, "_decoded", lambda path, to: decoded.append(path.name) or real(path, to))


def test_images_that_come_next_are_decoded_once_and_beside_the_first(tmp_path, monkeypatch):
    counting(monkeypatch, decoded := [])
    paths = [save(tmp_path / f"{i}.png", picture(i)) for i in range(4)]
    cache = Cache(budget=0)  # nothing is kept after it was given
    first = cache.read(paths[0], coming=paths[1:])
    assert sorted(decoded) == ["0.png", "1.png", "2.png", "3.png"]
    decoded.clear()
    cache.read(paths[0], decoder=decode_mask)  # as between two images
    cache.read(paths[0], coming=paths[1:])
    assert decoded == ["0.png", "0.png"]  # those ahead are still there
    images = [first, *(cache.read(path) for path in paths[1:])]
    assert len(decoded) == 2
    assert all(np.array_equal(image, decode(path)) for image, path in zip(images, paths, strict=True))
    decoded.clear()
    cache.read(paths[1])
    assert decoded == ["1.png"]


def test_no_more_is_decoded_ahead_than_there_is_room_for(tmp_path, monkeypatch):
    counting(monkeypatch, decoded := [])
    paths = [save(tmp_path / f"{i}.png", picture(i)) for i in range(4)]
    monkeypatch.setattr(files, "AHEAD", 2 * decode(paths[0]).nbytes)
    decoded.clear()
    Cache().read(paths[0], coming=paths[1:])
    assert sorted(decoded) == ["0.png", "1.png", "2.png"]


def test_what_cannot_be_decoded_ahead_fails_when_it_is_asked_for(tmp_path, monkeypatch):
    small = save(tmp_path / "small.png", picture(0))
    bomb = save(tmp_path / "bomb.png", np.zeros((40, 40), np.uint8))
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 1000
    )  # of more there is a warning, of twice as many an error
    (broken := tmp_path / "broken.png").write_bytes(small.read_bytes()[:60])
    cache = Cache()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.read(small, coming=[bomb, broken, tmp_path / "missing.png"])
    for path, why in ((bomb, "more than 1,000 pixels"), (broken, ""), (tmp_path / "missing.png", "no such")):
        with pytest.raises(DataError, match=rf"{path.name} cannot be read as an image \(.*{why}"):
            cache.read(path)


def test_a_failed_download_leaves_nothing(tmp_path):
    def download(place: Path) -> None:
        save(place / "set/a.png", picture(0))
        raise OSError("the line is dead")

    told = r"set is not in .* could not be downloaded \(OSError: the line is dead\); try again, or get it from its source"
    with pytest.raises(DataError, match=told):
        fetch_folder(tmp_path / "mistyped/root", "set", download)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "root").mkdir()
    with pytest.raises(DataError):
        fetch_folder(tmp_path / "root", "set", download)
    assert list((tmp_path / "root").iterdir()) == []


def test_nothing_is_downloaded_to_where_there_is_something(tmp_path):
    save(tmp_path / "set/part.png", picture(0))
    refused = f"{tmp_path / 'set'} is incomplete; remove it and fetch the data again"
    with pytest.raises(DataError, match=re.escape(refused)):
        fetch_folder(tmp_path, "set", pytest.fail)


def test_a_download_is_moved_into_place(tmp_path):
    folder = fetch_folder(tmp_path / "root", "set", lambda place: save(place / "set/a.png", picture(0)))
    assert folder == tmp_path / "root/set"
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["set"]
    assert (folder / "a.png").is_file()


def test_of_several_runs_that_download_at_a_time_each_has_what_the_first_one_moved_into_place(tmp_path):
    def download(place: Path) -> None:
        save(place / "set/a.png", picture(0))
        save(tmp_path / "set/first.png", picture(0))

    assert fetch_folder(tmp_path, "set", download) == tmp_path / "set"
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "first.png"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".PNG", ".TIFF"])
def test_an_image_is_known_by_any_of_the_documented_suffixes(suffix, tmp_path):
    path = save(tmp_path / f"a{suffix}", picture(1))
    (tmp_path / "notes.txt").touch()
    assert list_images(tmp_path) == [path]
