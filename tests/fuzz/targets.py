"""What reads strangers' bytes: each target must return, or raise an `AdbenchError`, which is one printable line.

A target takes bytes and an empty folder. `SEEDS` holds sound inputs of each, from which fuzzers set out.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from lzma import LZMAError
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from make_board import board_of, grid
from PIL import Image
from safetensors.torch import save as save_tensors
from test_leaderboard import result

from adbench_tgan import Detector, DetectorConfig, Endless, audit_table, boards
from adbench_tgan.boards.board import judge
from adbench_tgan.boards.cells import to_csv
from adbench_tgan.boards.differences import cells
from adbench_tgan.boards.folder import parse, read_losses, read_score_file, render
from adbench_tgan.boards.schemas import TABLES
from adbench_tgan.boards.schemas import check as check_table
from adbench_tgan.checkpoints import Checkpoint, sealed
from adbench_tgan.data import cifar10, folder, imagefolder, mnist, mvtec, stl10
from adbench_tgan.data.archives import ArchiveError, unpack
from adbench_tgan.data.files import decode, decode_mask
from adbench_tgan.data.samples import Samples
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import configure
from adbench_tgan.leaderboard import is_pure, results_table
from adbench_tgan.predict import memory_limited, read_state
from adbench_tgan.ranking.published import papers_of, read_published
from adbench_tgan.ranking.selection import without_superseded
from adbench_tgan.results import ResultStore, as_json, read_result
from adbench_tgan.store.stored import newer, read_scores
from adbench_tgan.terminal.views import records_view
from adbench_tgan.text import csv_of, plain
from adbench_tgan.training import fit

Target = Callable[[bytes, Path], object]
Edit = tuple[float, str, bytes]  # where, as a share of the length; what; with what
KINDS = ("replace", "insert", "delete", "cut", "repeat")


def written(data: bytes, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def of_cifar10(data: bytes, place: Path) -> None:
    pixels, labels = cifar10.read_batch(written(data, place / "batch"))
    assert pixels.shape[1:] == (3, 32, 32)
    assert 0 <= labels.min() <= labels.max() <= 9


def of_mnist(data: bytes, place: Path) -> None:
    for part in ("train", "t10k"):
        written(data, place / f"{part}-images-idx3-ubyte")
        written(bytes.fromhex("0000080100000002") + b"\0\1", place / f"{part}-labels-idx1-ubyte")
    use(mnist.load_mnist(place, False).images)


def of_stl10(data: bytes, place: Path) -> None:
    for part in ("train", "test"):
        written(bytes(2 * 3 * 96 * 96), place / f"{part}_X.bin")
        written(data, place / f"{part}_y.bin")
    use(stl10.load(place, False).images)


def of_image(data: bytes, place: Path) -> None:
    path = written(data, place / "image")
    for read in (decode, decode_mask):
        try:
            assert read(path).dtype == np.uint8
        except AdbenchError:
            continue


def of_archive(data: bytes, place: Path) -> None:
    inside = place / "deep/inside"
    inside.mkdir(parents=True)
    damage = (ArchiveError, tarfile.TarError, OSError, EOFError, ValueError, LZMAError, zlib.error)
    with suppress(*damage):  # `fetch_folder` catches whatever a download raises
        unpack(written(data, place / "archive"), inside, limit=10_000_000)
    assert not any(path.is_symlink() for path in place.rglob("*"))
    assert sorted(path.name for path in place.iterdir()) == ["archive", "deep"]


class Trainable(Detector):
    """All kinds of parts that a checkpoint holds."""

    def epochs(self, train: object) -> Iterator[Mapping[str, float]]:
        self.network = torch.nn.Linear(2, 2)
        optimizer = torch.optim.Adam(self.network.parameters())
        batches = Endless(lambda order: iter(torch.randperm(4, generator=order).tolist()), 0)
        dice, mean = torch.Generator().manual_seed(1), torch.zeros(3)
        self.resume(optimizer=optimizer, batches=batches, dice=dice, mean=mean)
        self.network(torch.full((1, 2), float(next(batches)))).sum().backward()
        optimizer.step()
        yield {"loss": 1.0}

    @property
    def networks(self) -> dict[str, torch.nn.Module]:
        return {"network": self.network}

    def resume(self, **parts: object) -> int:
        super().resume(**parts)
        if not self.checkpoint.every:
            raise TakenUp  # a training with strange settings may fail, as any may
        return 0

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((1, 2, 3))


class TakenUp(Exception):
    """All was read."""


def of_checkpoint(data: bytes, place: Path) -> None:
    """As that of an interrupted training."""
    detector = Trainable()
    with torch.random.fork_rng(), suppress(TakenUp):
        fit(detector, None, checkpoint=Checkpoint(written(sealed(data), place / "kept"), "key"))
    assert all(note.isprintable() for note in detector.notes)


def a_checkpoint() -> bytes:
    with TemporaryDirectory() as place:
        fit(Trainable(), None, checkpoint=Checkpoint(Path(place) / "kept", "key", every=1))
        return (Path(place) / "kept").read_bytes()[32:]


def of_result(data: bytes, place: Path) -> None:
    """As a store's result: read, tabled, printed."""
    written(data, place / "a/b/c/d/result.json")
    found = read_result(place / "a/b/c/d")
    newer(place / "a/b/c/d/result.json")
    assert list(ResultStore(place).results()) == []  # its folder has not its name
    if found is not None:
        table = results_table(without_superseded([found]))
        assert all(row.isprintable() for row in csv_of(table).splitlines())
        assert ResultStore(place).folder(found.job).is_relative_to(place)
        is_pure(replace(found, job=replace(found.job, precision="fp32")))
        plain(str(found.job))
        records_view([asdict(found.job)], str(found.job))


def of_scores(data: bytes, place: Path) -> None:
    """As a job's scores, with a ``result.json`` that vouches for them."""
    path = written(data, place / "scores.parquet")
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(as_json(result("d")) | {"files": {path.name: facts}})
    written(text.encode(), place / "result.json")
    table = read_scores(place)
    assert np.isfinite(table["score"]).all()
    assert table["label"].isin([0, 1]).all()


class Tiny(Detector):
    class Config(DetectorConfig):
        latent: int = 4
        rate: float = 0.1
        sizes: tuple[int, ...] = (1,)
        name: str | None = None

    def build(self, shape):
        self.net = torch.nn.Linear(3, 2)

    @property
    def networks(self):
        return {"net": self.net} if hasattr(self, "net") else {}

    def fit(self, train):
        return self

    def score(self, images):
        return images.float().mean((1, 2, 3))


def of_model(data: bytes, place: Path) -> None:
    with memory_limited(2**30):
        tiny = Tiny().load_state(read_state(written(data, place / "model.safetensors")), (3, 4, 4))
    assert type(tiny.config) is Tiny.Config
    assert callable(tiny.score)


def of_setting(data: bytes, place: Path) -> None:
    key, _, text = data.decode(errors="replace").partition("=")
    configure("tiny", Tiny, {key: text})


def of_published(data: bytes, place: Path) -> None:
    papers_of(read_published(written(data, place / "published.csv")), "cifar10", ["egbad"])


def of_audit(data: bytes, place: Path) -> None:
    job = result("d").job
    written(data, audit_table.file_of(place, job))
    audit_table.gather(place, [job], ())


def of_board_table(data: bytes, place: Path) -> None:
    """As each of a board's tables: read, checked, and compared with a sound one."""
    for table in TABLES:
        written(data, place / table.file)
        for found in cells(place, table, BOARD[table.file]):
            printable(str(boards.Finding(board="b", file=found[0], where=found[1], problem=found[2])))
        with suppress(AdbenchError):
            check_table(parse(data, table), table)


def of_board_json(data: bytes, place: Path) -> None:
    """As the ``board.json`` of a board that has all else: read, and verified."""
    folder = place / "toy"
    for name, content in {**BOARD, "board.json": data}.items():
        written(content, folder / name)
    for finding in boards.verify(folder):
        printable(str(finding))
    found = boards.read(folder)
    results_table([judge(each, found.scores) for each in found.measured if each.job.key in found.scores])


def of_board_scores(data: bytes, place: Path) -> None:
    table = read_score_file(written(data, place / "scores.parquet"))
    assert np.isfinite(table["score"]).all()
    assert table["label"].isin([0, 1]).all()


def of_board_losses(data: bytes, place: Path) -> None:
    name = "losses/good.csv"
    written(data, place / name)
    for table in read_losses(place, {"files": [name]}).values():
        to_csv(table, ())


def of_tree(data: bytes, place: Path) -> None:
    """Each line is a path to make: a folder, an image, a pipe or a link, as its last letter says."""
    root = place / "root"
    root.mkdir()
    for line in data.split(b"\n")[:40]:
        grow(root, line)
    for load in (folder.load, imagefolder.load, mvtec.load):
        with suppress(AdbenchError):
            dataset = load(root, False)
            for category in dataset.categories:
                use(dataset.samples(category))


def grow(root: Path, line: bytes) -> None:
    parts = [part[:60] for part in line.split(b"/") if part not in (b"", b".", b"..") and b"\0" not in part]
    path = Path(os.fsdecode(os.path.join(os.fsencode(root), *parts)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if line.endswith(b"|"):
            os.mkfifo(f"{path}.png")
        elif line.endswith(b">"):
            Path(f"{path}.png").symlink_to("/dev/zero")
        elif line.endswith(b"/"):
            path.mkdir()
        else:
            Path(f"{path}.png").write_bytes(PICTURES[0] if len(line) % 5 else line)
    except OSError:
        pass  # there already, or a file where a folder should be


def use(samples: Samples) -> None:
    for index in range(len(samples)):
        samples.read(index)
        if samples.read_mask is not None:
            samples.read_mask(index)


def printable(text: str) -> None:
    assert text.isprintable(), f"not one printable line: {text!r}"


def attempt(target: Target, data: bytes, place: Path) -> None:
    """Run a target; whatever is wrong with the input must be told by an error of ours, which is one printable line."""
    with suppress(AdbenchError):
        target(data, place)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pictures() -> list[bytes]:
    colour = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    real = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8))
    kinds = [encoded(colour, kind) for kind in ("PNG", "JPEG", "BMP", "TIFF")]
    return [*kinds, encoded(real, "TIFF"), encoded(deep, "PNG"), encoded(colour.convert("P"), "PNG")]


def batch(protocol: int) -> bytes:
    entry = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 9]}
    return pickle.dumps(entry, protocol=protocol)


def tar(mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name in ("set/a", "set/" + "b" * 120):
            info = tarfile.TarInfo(name)
            info.size = 700
            archive.addfile(info, io.BytesIO(bytes(700)))
    return out.getvalue()


def parquet() -> bytes:
    out = io.BytesIO()
    frame = pd.DataFrame({"sample_id": ["a", "b"], "label": np.uint8([0, 1]), "score": np.float32([1, 2])})
    frame.to_parquet(out, index=False)
    return out.getvalue()


def audit_record() -> bytes:
    curves = {name: [0.5, 0.75] for name in audit_table.CURVES}
    return json.dumps(
        {"schema": 1, "job": asdict(result("d").job), "device": "cpu", "version": "1"} | curves
    ).encode()


def small_board() -> dict[str, bytes]:
    """The files of a board of two detectors."""
    with TemporaryDirectory() as place:
        files, _ = render(board_of(Path(place), grid(["good", "poor"], ["ant"])))
    return files


BOARD = small_board()
PICTURES = pictures()
TREE = b"""screw/train/good/a
screw/test/good/a
screw/test/dent/a
screw/ground_truth/dent/a_mask
train/0.normal/a
test/0.normal/a
test/1.abnormal/a
train/cat/a
train/dog/b
test/cat/x|
test/dog/y>
"""
PUBLISHED = b"""our_detector,source,table,protocol,our_dataset,our_protocol,category,metric,value
egbad,paper,1,words,cifar10,leave-one-out-6k,6 (frog),AUROC percent,51.2
"""
SEEDS: dict[str, Sequence[bytes]] = {
    "cifar10": [batch(2)],
    "mnist": [bytes.fromhex("00000803000000020000000300000003") + bytes(18)],
    "stl10": [b"\1\2"],
    "image": PICTURES,
    "archive": [tar("w"), tar("w:gz"), tar("w:xz")],
    "result": [json.dumps(as_json(result("d")) | {"files": {}}).encode()],
    "scores": [parquet()],
    "model": [
        save_tensors({"net.weight": torch.zeros(2, 3), "net.bias": torch.zeros(2), "mean": torch.zeros(1)})
    ],
    "checkpoint": [a_checkpoint()],
    "setting": [b"latent=3", b"rate=1e-3", b"sizes=[1, 2]", b"name=null"],
    "published": [PUBLISHED],
    "audit": [audit_record()],
    "board_table": [BOARD[table.file] for table in TABLES],
    "board_json": [BOARD["board.json"]],
    "board_scores": [BOARD["scores/good.parquet"]],
    "board_losses": [BOARD["losses/good.csv"]],
    "tree": [TREE],
}
TARGETS: dict[str, Target] = {name: globals()[f"of_{name}"] for name in SEEDS}


def mutated(seed: bytes, edits: Sequence[Edit]) -> bytes:
    """`seed` with some changes."""
    data = seed
    for where, kind, piece in edits:
        at = int(where * len(data))
        if kind == "replace":
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == "insert":
            data = data[:at] + piece + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + 1 + len(piece) :]
        elif kind == "cut":
            data = data[:at]
        else:
            data = data[:at] + data[at : at + 20] * 50 + data[at:]
    return data
