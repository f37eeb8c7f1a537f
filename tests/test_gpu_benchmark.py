"""The benchmark for GPUs, tried out on the CPU with small numbers: what it writes, not how fast it is."""

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
from benchmarks import gpu
from test_leaderboard import result

from adbench_tgan import AdbenchError


def test_everything_is_measured_written_and_shown(tmp_path, capsys):
    assert gpu.main(["--device", "cpu", "--tiny", "--out", str(tmp_path)]) == 0
    with (tmp_path / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = [(row["what"], row["detector"]) for row in rows]
    for name in gpu.DETECTORS:
        assert kinds.count(("equality", name)) == 1
        assert kinds.count(("training", name)) == 2
    assert kinds.count(("walk", "transgan_anogan")) == 2
    assert all(float(row["images_per_second"]) > 0 for row in rows if row["what"] in ("training", "walk"))
    (grid,) = (row for row in rows if row["what"] == "grid")
    assert (grid["mode"], grid["jobs"], grid["jobs_at_once"], grid["difference"]) == ("local", "2", "1", "")
    assert 0 < float(grid["overhead_seconds"]) * 2 < float(grid["seconds"])
    assert all(float(row["difference"]) == 0 for row in rows if row["what"] == "equality")  # no graphs here
    assert len(json.loads((tmp_path / "gpu.json").read_text())["rows"]) == len(rows)
    assert sorted(path.stem for path in tmp_path.glob("*.txt")) == ["profile-ganomaly", "profile-walk"]
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == len(rows) + 1
    assert "times one at a time" in shown[-2]
    assert "s a job beside fit and score" in shown[-1]


def test_grids_are_shown_as_a_ratio_and_their_scores_are_compared():
    def row(mode, seconds, **more):
        return gpu.Row(
            what="grid",
            detector="g",
            precision="fp32",
            mode=mode,
            jobs=10,
            jobs_at_once=1,
            seconds=seconds,
            **more,
        )

    rows = [row("local", 100.0), row("auto", 25.0, difference=1e-6)]
    shown = [line.split("at most")[1] for line in gpu.table(rows)]
    assert shown == ["", "; 4 times one after another; largest difference of scores 1e-06"]
    assert gpu.MODES["auto"] == ("processes", {"jobs_per_gpu": "auto"})


def test_scores_of_grids_are_compared_job_by_job():
    def scored(seed, *values):
        return replace(result("g", seed=seed), scores=pd.DataFrame({"score": np.float32(values)}))

    one = gpu.Grid(results=(scored(0, 1, 2), scored(1, 4, 8)), seconds=1.0)
    other = gpu.Grid(results=(scored(1, 4, 6), scored(0, 1, 2)), seconds=1.0)
    assert one.difference(one) == 0
    assert one.difference(other) == 0.25


def test_one_that_fails_is_a_row_and_the_exit_status_says_so(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise AdbenchError("no such thing")

    monkeypatch.setattr(gpu, "equality", broken)
    assert gpu.main(["--device", "cpu", "--tiny", "--out", str(tmp_path), "--only", "equality sagan"]) == 1
    assert "failed: AdbenchError: no such thing" in capsys.readouterr().out
