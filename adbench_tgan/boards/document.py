"""``board.json``: what was measured, on which machines, under which protocol, and the hashes of all files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from adbench_tgan.again import joined, run_commands
from adbench_tgan.boards.board import IMAGE_METRICS, RULES, Board, Facts, labels_hash, scores_hash
from adbench_tgan.boards.schemas import SCHEMA
from adbench_tgan.jobs import Job
from adbench_tgan.leaderboard import METRICS, PURITY
from adbench_tgan.metrics import chance_f1
from adbench_tgan.ranking.published import Paper
from adbench_tgan.ranking.statistics import INTERVAL, MOVES, RESAMPLES
from adbench_tgan.results import Result

PROVENANCE = {
    "image_metrics": "recomputed from the scores: auroc, average_precision, f1_max, fpr95; balanced_accuracy with "
    "each job's threshold",
    "pixel_metrics": "pixel_auroc and aupro were computed when a job ran, from anomaly maps that are not kept; "
    "from image scores they can only be checked to be the same in all files",
    "measured": "threshold, purity_delta, times, memory, operations and parameters were measured when a job ran",
    "scores": "each job's scores_sha256 is over its scores as little-endian float32 in the order of sample_id; a "
    "category's labels_sha256 over 'sample_id TAB label NEWLINE'",
}
OF_PLUGINS = {
    "plugin_metrics": "metrics of plugins were computed when a job ran, by code that is not kept; nothing checks them"
}
CONFIGURATION = ("detector", "detector_version", "config", "precision", "supervision", "preset", "pretrained")
OF_JOB = ("category", "seed", "split_fingerprint", "offer_fingerprint", "problem")
OF_RESULT = (
    "status error parameters threshold purity_delta declared suite anomalies_fingerprint shape device"
).split()
ADDED = ("code", "of_categories", "unofficial", "reconstruction_error")  # that older results do not have


def document(board: Board, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All of ``board.json``; `files` are the hashes of the other files."""
    facts = board.facts
    machines, configurations = _named(board.measured)
    sections: dict[str, Any] = {
        "schema": SCHEMA,
        "name": facts.name,
        "dataset": dict(facts.dataset),
        "protocol": dict(facts.protocol),
        **({"note": facts.note} if facts.note else {}),
        "categories": categories(board),
        "rules": {
            "seeds_to_be_ranked": RULES.seeds,
            "purity": PURITY,
            "resamples": RESAMPLES,
            "moves_by_seeds": MOVES,
            "interval": list(INTERVAL),
        },
        "provenance": PROVENANCE | (OF_PLUGINS if has_others(board.measured) else {}),
        "commands": commands(facts, [result.job for result in board.measured]),
        "published": [asdict(paper) for paper in facts.papers],
        "audit": dict(facts.audit or {}),
        "machines": dict(machines.values()),
        "configurations": dict(configurations.values()),
        "files": {name: dict(files[name]) for name in sorted(files)},
    }
    sections = json.loads(json.dumps(sections))  # tuples become lists, as they will be read
    jobs = [_job(result, machines, configurations, board) for result in board.measured]
    seals = {name: seal(section) for name, section in sections.items()}
    return sections | {"jobs": jobs, "seals": seals | {"jobs": seal([job["seal"] for job in jobs])}}


def seal(section: Any) -> str:
    """SHA-256 of a part of ``board.json``, in one fixed form."""
    return hashlib.sha256(json.dumps(section, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def text_of(content: Mapping[str, Any]) -> str:
    """``board.json`` as text, a job a line."""
    body = {name: part for name, part in content.items() if name != "jobs"}
    lines = [json.dumps(job, ensure_ascii=False, allow_nan=False) for job in content["jobs"]]
    head = json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    return f'{head},\n "jobs": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


def categories(board: Board) -> list[dict[str, Any]]:
    """What the test sets are, as the scores' labels tell."""
    cards = {}
    for result in board.measured:
        if result.status == "ok" and result.job.category not in cards:
            cards[result.job.category] = _card(result, board)
    return [cards[name] for name in sorted(cards)]


def _card(result: Result, board: Board) -> dict[str, Any]:
    scores = board.scores[result.job.key]
    abnormal = int((scores["label"] == 1).sum())
    share = abnormal / len(scores)
    return {
        "category": result.job.category,
        "fingerprint": result.job.split_fingerprint,
        "test_normal": len(scores) - abnormal,
        "test_abnormal": abnormal,
        "chance_average_precision": round(share, 6),
        "chance_f1": round(chance_f1(share), 6),
        "labels_sha256": labels_hash(scores),
    }


def commands(facts: Facts, jobs: Sequence[Job]) -> list[str]:
    """The command lines that run these jobs, and publish them."""
    audit = ["--audit", "audits/audit.csv"] if facts.audit else []
    note = ["--note", facts.note] if facts.note else []
    publish = joined(["adbench", "publish", "--runs", "runs", "--board", facts.name, *audit, *note])
    return [*run_commands(jobs), publish]


Named = dict[str, tuple[str, dict[str, Any]]]  # seal -> name and content


def _named(measured: Sequence[Result]) -> tuple[Named, Named]:
    """The machines and configurations of all jobs, each once and with a name."""
    machines: Named = {}
    configurations: Named = {}
    for result in measured:
        for known, content, prefix in (
            (machines, _plain(result.machine), "machine"),
            (
                configurations,
                _plain({name: getattr(result.job, name) for name in CONFIGURATION}),
                result.job.detector,
            ),
        ):
            key = seal(content)
            known.setdefault(key, (f"{prefix}-{key[:8]}", content))
    return dict(sorted(machines.items())), dict(sorted(configurations.items(), key=lambda item: item[1][0]))


def has_others(measured: Iterable[Result]) -> bool:
    """Whether a job has a metric that is not the framework's."""
    return any(result.metrics.keys() - set(METRICS) for result in measured)


def _job(result: Result, machines: Named, configurations: Named, board: Board) -> dict[str, Any]:
    job = result.job
    configuration = seal(_plain({name: getattr(job, name) for name in CONFIGURATION}))
    record = {
        "key": job.key,
        "configuration": configurations[configuration][0],
        **{name: getattr(job, name) for name in OF_JOB},
        **{name: getattr(result, name) for name in OF_RESULT},
        "metrics": {name: value for name, value in result.metrics.items() if name not in IMAGE_METRICS},
        "timing": {
            name: value for name, value in result.timing.items() if not isinstance(value, list | tuple)
        },
        "machine": machines[seal(_plain(result.machine))][0],
        "notes": result.notes,
        "version": result.version,
        **({"metrics_code": result.metrics_code} if result.metrics_code else {}),
        **{name: value for name in ADDED if (value := getattr(result, name)) not in (None, "")},
        "scores_sha256": scores_hash(board.scores[job.key]) if result.status == "ok" else "",
    }
    told: dict[str, Any] = _plain(record)
    return told | {"seal": seal(told)}


def _plain(content: Any) -> Any:
    """As it will be read from JSON; what is no number is absent."""
    if isinstance(content, Mapping):
        return {str(name): _plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def facts_of(content: Mapping[str, Any]) -> Facts:
    """What a ``board.json`` states."""
    return Facts(
        name=content["name"],
        dataset=content["dataset"],
        protocol=content["protocol"],
        papers=tuple(Paper(**paper) for paper in content["published"]),
        audit=content["audit"],
        note=str(content.get("note", "")),
    )


def results_of(content: Mapping[str, Any]) -> tuple[Result, ...]:
    """The results that a ``board.json`` holds, without the metrics that follow from scores."""
    return tuple(_result(record, content) for record in content["jobs"])


def _result(record: Mapping[str, Any], content: Mapping[str, Any]) -> Result:
    protocol = content["protocol"]
    job = Job(
        dataset=content["dataset"]["name"],
        protocol=protocol["name"],
        protocol_version=protocol["version"],
        **content["configurations"][record["configuration"]],
        **{name: record[name] for name in OF_JOB},
    )
    rest = {name: record[name] for name in OF_RESULT if name != "shape"}
    return Result(
        job=job,
        metrics=record["metrics"],
        metrics_code=dict(record.get("metrics_code", {})),
        timing=record["timing"],
        machine=content["machines"][record["machine"]],
        notes=tuple(record["notes"]),
        version=record["version"],
        shape=tuple(record["shape"]) if record["shape"] else None,
        **{name: record[name] for name in ADDED if name in record},
        **rest,
    )
