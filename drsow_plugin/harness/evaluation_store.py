"""Records of evaluations in the schema of Every Eval Ever, 0.3.0 (arXiv 2606.14516).

One JSON file a benchmark, at the place that the store has for it:
``data/BENCHMARK/ORGANIZATION/MODEL/UUID.json``. The UUID follows from what was evaluated and when,
so that a run that is exported again gets the same file.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from drsow_plugin.harness.benchmarks import published
from drsow_plugin.harness.exported import (
    Benchmark,
    Evaluator,
    left_out,
    model_details,
    model_name,
)
from drsow_plugin.harness.results import Metric, Run, TaskResult

SCHEMA = "0.3.0"

_SHARE = {"metric_unit": "proportion", "min_score": 0.0, "max_score": 1.0}
_TIES = _SHARE | {"min_score": -0.01, "max_score": 1.01}  # its composite has a hundredth of a tanh
_COUNT = {"metric_unit": "count", "min_score": 0.0, "max_score": "Infinity"}
_OPEN = {"min_score": "-Infinity", "max_score": "Infinity"}
_KINDS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("acc", "acc_tie_half", "acc_longer", "acc_pairs"), _SHARE),
    **dict.fromkeys(("score", "score_tie_half", "score_longer"), _SHARE),
    **dict.fromkeys(("easy", "normal", "hard"), _SHARE),
    **dict.fromkeys(("easy_longer", "normal_longer", "hard_longer"), _SHARE),
    **dict.fromkeys(("ties", "overflow", "subsets_missing"), _COUNT),
    **dict.fromkeys(("rating", "rating_best", "rating_random", "rating_longest"), _OPEN),
    "margin": _OPEN,
}
"""What is known of our tasks' metrics, by their names."""

_OF_DATA = ("data_sha256", "data_name", "data_revision", "version")

_GLOBAL_IDS = {"acc": "accuracy"}


def records(
    run: Run, benchmarks: Sequence[Benchmark], evaluator: Evaluator, left: list[str]
) -> dict[str, str]:
    """Return the records of a run, by their places in the store.

    Args:
        run: The run.
        benchmarks: Its benchmarks.
        evaluator: Who ran it, of what.
        left: Gets what is left out, in words.
    """
    made = {}
    for benchmark in benchmarks:
        without = [f"{task.name} {name}" for task in benchmark.results for name in task.without]
        if without:
            left.append(left_out(benchmark.name, without))
        record = _record(run, benchmark, evaluator)
        if record["evaluation_results"]:
            folder = f"data/{benchmark.name}/{evaluator.model_id}"
            name = _uuid(f"{record['evaluation_id']} {model_details(run).get('fingerprint')}")
            made[f"{folder}/{name}.json"] = json.dumps(record, indent=2, allow_nan=False) + "\n"
    return made


def _uuid(text: str) -> uuid.UUID:
    return uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4)


def _record(run: Run, benchmark: Benchmark, evaluator: Evaluator) -> dict[str, Any]:
    results = [
        _result(run, benchmark, task, metric)
        for task in benchmark.results
        for metric in task.metrics
    ]
    organization, name = evaluator.model_id.split("/")
    is_open = all("/" in part for part in model_name(run).split(" over "))
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{benchmark.name}/{organization}_{name}/{run.date:.0f}",
        "evaluation_timestamp": f"{run.date:.0f}",
        "retrieved_timestamp": f"{time.time():.0f}",
        "source_metadata": {
            "source_name": "drsow-plugin",
            "source_type": "evaluation_run",
            "source_organization_name": evaluator.organization,
            "evaluator_relationship": evaluator.relationship,
        },
        "eval_library": {
            "name": "lm_eval",
            "version": run.version,
            "additional_details": {"tasks": f"drsow-plugin {metadata.version('drsow-plugin')}"},
        },
        "model_info": {
            "name": model_name(run),
            "id": evaluator.model_id,
            "developer": organization,
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "open_weights" if is_open else "unknown",
                **model_details(run),
            },
        },
        "evaluation_results": results,
    }


def _result(run: Run, benchmark: Benchmark, task: TaskResult, metric: Metric) -> dict[str, Any]:
    dotted = [task.name, *filter(None, [metric.subset])]
    known = _known(run, task, metric)
    uncertainty: dict[str, Any] = {}
    if metric.stderr is not None:
        uncertainty["standard_error"] = {"value": metric.stderr, "method": "analytic"}
    if metric.interval is not None:
        low, high = metric.interval
        uncertainty["confidence_interval"] = {
            "lower": low,
            "upper": high,
            "confidence_level": 0.95,
            "method": "bootstrap over prompts; Clopper-Pearson where all rows are alike",
        }
    if task.samples and not metric.subset:
        uncertainty["num_samples"] = task.samples
    filtered = "" if metric.filter == "none" else f":{metric.filter}"
    return {
        "evaluation_result_id": f"{task.name}:{metric.name}{filtered}",
        "evaluation_name": ".".join(dotted),
        "source_data": _source(run, benchmark, task),
        "evaluation_timestamp": f"{run.date:.0f}",
        "metric_config": {
            "metric_id": _GLOBAL_IDS.get(metric.kind, f"{benchmark.name}.{metric.kind}"),
            "metric_name": metric.kind,
            "lower_is_better": not metric.higher_is_better,
            **known,
        },
        "score_details": {
            "score": metric.value,
            **({"uncertainty": uncertainty} if uncertainty else {}),
        },
    }


def _known(run: Run, task: TaskResult, metric: Metric) -> dict[str, Any]:
    """Return unit and bounds of a metric, where they are known: those of our own tasks."""
    if published(task.name) is None or metric.kind not in _KINDS:
        return {}
    known: dict[str, Any] = {"score_type": "continuous", **_KINDS[metric.kind]}
    if task.name == "rewardbench2" and metric.kind.startswith("score"):
        known |= _TIES
    if metric.kind == "margin" and run.model != "reward":
        known["metric_unit"] = "nats"
    return known


def _source(run: Run, benchmark: Benchmark, task: TaskResult) -> dict[str, Any]:
    """Return where the rows came from: the Hub, a page, or a file of somebody's."""
    said: Mapping[str, Any] = task.config.get("metadata") or {}
    given, known = said or benchmark.metadata, published(task.name)
    details = {name: str(said[name]) for name in _OF_DATA if said.get(name) is not None}
    if run.limit is not None:
        details["limit"] = str(run.limit)
    source: dict[str, Any] = {"dataset_name": benchmark.name, "source_type": "other"}
    if known is not None and known.hub_id and not given.get("data"):
        split = known.split or (task.config.get("dataset_kwargs") or {}).get("pairs")
        source |= {"source_type": "hf_dataset", "hf_repo": known.hub_id}
        source |= {"hf_split": split} if split else {}
        source |= {"samples_number": task.samples} if task.samples else {}
    elif known is not None and known.url:
        source |= {"source_type": "url", "url": [known.url]}
    elif known is not None and known.hub_id:
        details["copy_of"] = known.hub_id
    return {**source, **({"additional_details": details} if details else {})}
