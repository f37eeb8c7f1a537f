"""What is published, counted again as a reader would: by pandas, NumPy, SciPy and scikit-learn, without the framework."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import wilcoxon
from sklearn import metrics

ROOT = Path(__file__).parent.parent
LEADERBOARDS = ROOT / "leaderboards"
SCREWS = ROOT.parent / "shared/data/mvtec_256/screw"
BOARDS = sorted(path.parent for path in LEADERBOARDS.glob("*/pairs.csv"))
MEASURED = ["auroc", "average_precision", "f1_max", "fpr95", "balanced_accuracy"]
CONFIGURATION = ["supervision", "detector", "preset"]


class Board:
    """A board's tables, scores and thresholds."""

    def __init__(self, folder):
        self.results, self.leaderboard, self.pairs = (
            pd.read_csv(folder / f"{name}.csv") for name in ("results", "leaderboard", "pairs")
        )
        jobs = json.loads((folder / "board.json").read_text())["jobs"]
        self.thresholds = {job["key"]: job["threshold"] for job in jobs}
        self.scores = pd.concat(map(pd.read_parquet, sorted((folder / "scores").glob("*.parquet"))))
        self.jobs = self.results[self.results.status == "ok"]


@pytest.fixture(scope="module", params=BOARDS, ids=lambda folder: folder.name)
def board(request):
    return Board(request.param)


def measured(scores, threshold):
    label, score = scores.label.to_numpy(), scores.score.to_numpy().astype(float)
    precision, recall, _ = metrics.precision_recall_curve(label, score)
    fpr, tpr, _ = metrics.roc_curve(label, score, drop_intermediate=False)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    alarms = score > threshold
    balanced = (alarms[label == 1].mean() + (~alarms[label == 0]).mean()) / 2
    auroc, ap = metrics.roc_auc_score(label, score), metrics.average_precision_score(label, score)
    return [auroc, ap, f1.max(), fpr[tpr >= 0.95].min(), balanced]


def test_the_metrics_of_every_job(board):
    for key, scores in board.scores.groupby("key"):
        (job,) = board.jobs[board.jobs.key == key][MEASURED].to_numpy()
        np.testing.assert_allclose(measured(scores, board.thresholds[key]), job, rtol=6e-6, err_msg=key)
    assert set(board.scores.key) == set(board.jobs.key)


def test_the_means_of_every_row(board):
    for _, row in board.leaderboard.iterrows():
        jobs = board.jobs[(board.jobs[CONFIGURATION] == row[CONFIGURATION]).all(axis=1)]
        table = jobs.pivot_table("auroc", "seed", "category")
        mean = table.mean().mean(), jobs.pivot_table("average_precision", "seed", "category").mean().mean()
        np.testing.assert_allclose(mean, (row.auroc_mean, row.average_precision_mean), rtol=1e-5)
        assert (row.n_categories, row.n_seeds) == (table.shape[1], table.notna().sum().min())
        whole = len(table) > 1 and table.notna().all(axis=None)
        spread = table.mean(axis=1).std() if whole else np.nan
        np.testing.assert_allclose(spread, row.auroc_seed_std, rtol=1e-3, atol=2e-6)


def test_the_ranks(board):
    pairs = board.pairs[(board.pairs.difference_ci_low <= 0) & (board.pairs.difference_ci_high >= 0)]
    tied = set(zip(pairs.detector_a + pairs.preset_a, pairs.detector_b + pairs.preset_b, strict=True))
    ranked = board.leaderboard[board.leaderboard["rank"].notna()].sort_values("auroc_mean", ascending=False)
    for _, rows in ranked.groupby("supervision"):
        names, ranks = list(rows.detector + rows.preset), []
        for place, name in enumerate(names, 1):
            best = ranks[-1] if ranks else place
            pair = names[best - 1], name
            ranks.append(best if place > 1 and (pair in tied or pair[::-1] in tied) else place)
        assert list(rows["rank"]) == ranks
        assert list(rows.tie_group) == list(np.unique(ranks, return_inverse=True)[1] + 1)


def test_the_pairs(board):
    means = board.jobs.groupby([*CONFIGURATION, "category"]).auroc.mean().unstack("category")
    for _, pairs in board.pairs.groupby("supervision"):
        p_values = []
        for _, pair in pairs.iterrows():
            a, b = (means.loc[pair.supervision, pair[f"detector_{x}"], pair[f"preset_{x}"]] for x in "ab")
            differences = (a - b).dropna()
            np.testing.assert_allclose(differences.mean(), pair.auroc_difference, rtol=1e-3, atol=2e-6)
            p_values.append(
                wilcoxon(differences.round(9), method="exact").pvalue if differences.any() else 1.0
            )
            assert pair.n_categories == len(differences)
            np.testing.assert_allclose(pair.p_floor, 2 / 2 ** len(differences), rtol=1e-5)
            np.testing.assert_allclose(pair.holm_floor, min(1, len(pairs) * pair.p_floor), rtol=1e-5)
        np.testing.assert_allclose(p_values, pairs.wilcoxon_p, rtol=1e-5)
        np.testing.assert_allclose(holm(np.array(p_values)), pairs.holm_p, rtol=1e-5)


def holm(p):
    """Holm, Scandinavian Journal of Statistics 6, 1979: step down from the smallest."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1)
    return stepped[np.argsort(order, kind="stable")]


@pytest.mark.parametrize("name", ["digits-one-vs-rest", "mvtec-screw"])
def test_intervals_with_other_random_numbers(name):
    """Images are drawn anew within each class, for all categories at once; seeds would move the mean of categories."""
    (board,), draw = (Board(folder) for folder in BOARDS if folder.name == name), np.random.default_rng(0)
    labels = board.scores.drop_duplicates(["category", "sample_id"]).pivot(
        index="sample_id", columns="category", values="label"
    )
    counts = pd.DataFrame(0, labels.index, range(1000))  # how often each image was drawn
    for _, images in labels.groupby(list(labels.columns)):
        evenly = np.full(len(images), 1 / len(images))
        counts.loc[images.index] = draw.multinomial(len(images), evenly, 1000).T
    moves = draw.standard_t(2, 20_000)  # of three seeds, of which two are free
    for _, row in board.leaderboard[board.leaderboard.n_seeds == 3].iloc[::3].iterrows():
        jobs = board.jobs[(board.jobs[CONFIGURATION] == row[CONFIGURATION]).all(axis=1)]
        each = [resampled(board.scores[board.scores.key == key], counts) for key in jobs.key]
        means = pd.DataFrame(each).groupby(jobs.category.to_numpy()).mean().mean().to_numpy()
        error = jobs.groupby("seed").auroc.mean().std() / 3**0.5
        found = np.percentile((means.repeat(20) + error * moves).clip(0, 1), [2.5, 97.5])
        width = row.auroc_ci_high - row.auroc_ci_low
        np.testing.assert_allclose(found, [row.auroc_ci_low, row.auroc_ci_high], rtol=0, atol=width / 10)


def resampled(scores, counts):
    """AUROCs, (1000,), of images that count as often as they were drawn."""
    scores = scores.sort_values("score")
    label, drawn = scores.label.to_numpy()[:, None], counts.loc[scores.sample_id].to_numpy()
    ends = np.flatnonzero(np.diff(scores.score, append=np.inf))  # of images that share a score
    normal, abnormal = (
        np.diff((drawn * (label == kind)).cumsum(0)[ends], axis=0, prepend=0) for kind in (0, 1)
    )
    below = normal.cumsum(0) - normal / 2
    return (abnormal * below).sum(0) / (normal.sum(0) * abnormal.sum(0))


def test_the_audits():
    folder, cells = LEADERBOARDS / "audit", ["clean", "batch_statistics", "class_sorted"]
    table = pd.read_csv(folder / "audit.csv").set_index("key")
    found = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in folder.glob("curves/**/*.json")}
    assert set(found) == set(table.curves_sha256)
    for _, row in table.iterrows():
        curves = json.loads(found[row.curves_sha256].read_text())
        sorted_by_class = np.array(curves["class_sorted"])
        assert [curves[cell][-1] for cell in cells] == list(row[cells])
        assert (row.epochs, row.best_epoch) == (len(sorted_by_class), sorted_by_class.argmax() + 1)
        assert row.as_published == sorted_by_class.max()
        assert row.optimism == pytest.approx(sorted_by_class.max() - row.clean)


def test_the_times():
    folder = LEADERBOARDS / "timing-h200"
    records = json.loads((folder / "timing.json").read_text())["records"]
    table = pd.read_csv(folder / "timing.csv").set_index("key")
    assert sorted(table.index) == sorted(record["key"] for record in records)
    for record in records:
        row = table.loc[record["key"]]
        for kind in ("latency", "wall"):
            samples = record[f"{kind}_samples_ms"]
            for share, needed in ((50, 5), (95, 20), (99, 100)):
                expected = np.percentile(samples, share) if len(samples) >= needed else np.nan
                assert row[f"{kind}_ms_p{share}"] == pytest.approx(expected, nan_ok=True)
        best = max(record["batches"], key=lambda each: each["images_per_second"])
        assert (row.samples, row.best_batch) == (len(samples), best["batch"])
        assert row.images_per_second == pytest.approx(best["images_per_second"])


def test_the_fingerprint_of_a_category(capsys):
    (program,) = re.findall(
        r"```python\n(import hashlib\n.*?)```", (ROOT / "docs/data.md").read_text(), re.DOTALL
    )
    exec(program, {})
    jobs = pd.read_csv(LEADERBOARDS / "digits-one-vs-rest/results.csv", dtype={"category": str})
    assert set(jobs.split_fingerprint[jobs.category == "3"]) == {capsys.readouterr().out.strip()}


@pytest.mark.skipif(not SCREWS.is_dir(), reason="the images of ../shared/data are not there")
def test_the_fingerprint_of_images_with_masks():
    board = Board(LEADERBOARDS / "mvtec-screw")
    tested = board.scores[board.scores.key == board.jobs.key.iloc[0]]

    def digest(path):
        image = np.moveaxis(np.array(Image.open(path).convert("RGB")), 2, 0)
        return hashlib.sha256("x".join(map(str, image.shape)).encode() + image.tobytes()).digest()

    whole = hashlib.sha256()
    for path in sorted(SCREWS.glob("train/good/*.png")):
        whole.update(b"train" + digest(path))
    for name, label in zip(tested.sample_id, tested.label, strict=True):
        whole.update(b"test" + digest(SCREWS.parent / name) + bytes([label]))
    for name in tested.sample_id:
        path = SCREWS.parent / name.replace("/test/", "/ground_truth/").replace(".png", "_mask.png")
        mask = np.array(Image.open(path)) > 0 if path.exists() else np.zeros((256, 256), bool)
        whole.update(b"mask" + np.packbits(mask).tobytes())
    assert set(board.jobs.split_fingerprint) == {whole.hexdigest()}
