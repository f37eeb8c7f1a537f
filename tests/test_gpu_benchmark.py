"""The benchmark for GPUs, tried out on the CPU with small numbers: what it writes, not how fast it is."""

import csv
import json

from benchmarks import gpu

from adbench_tgan import AdbenchError


def test_everything_is_measured_written_and_shown(tmp_path, capsys):
    assert gpu.main(["--device", "cpu", "--tiny", "--out", str(tmp_path)]) == 0
    with (tmp_path / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = [(row["what"], row["detector"]) for row in rows]
    for name in gpu.DETECTORS:
        assert kinds.count(("equality", name)) == 1
        assert kinds.count(("training", name)) == 2
    assert kinds.count(("walk", "transgan_anogan")) == 3
    assert all(float(row["images_per_second"]) > 0 for row in rows if row["what"] != "equality")
    assert all(float(row["difference"]) == 0 for row in rows if row["what"] == "equality")  # no graphs here
    assert len(json.loads((tmp_path / "gpu.json").read_text())["rows"]) == len(rows)
    assert sorted(path.stem for path in tmp_path.glob("*.txt")) == ["profile-ganomaly", "profile-walk"]
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == len(rows) + 1
    assert "times one at a time" in shown[-1]


def test_one_that_fails_is_a_row_and_the_exit_status_says_so(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise AdbenchError("no such thing")

    monkeypatch.setattr(gpu, "equality", broken)
    assert gpu.main(["--device", "cpu", "--tiny", "--out", str(tmp_path), "--only", "equality sagan"]) == 1
    assert "failed: AdbenchError: no such thing" in capsys.readouterr().out
