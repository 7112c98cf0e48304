"""Scores as the Hub takes them in a model's repository: ``.eval_results/NAME.yaml``.

Source of the format: huggingface.co/docs/hub/eval-results. A benchmark's page shows them where the
data set is registered as one, under the name of a task that its ``eval.yaml`` lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from drsow_plugin.harness.benchmarks import published
from drsow_plugin.harness.exported import Benchmark, model_name
from drsow_plugin.harness.results import Run


def entries(
    run: Run, benchmarks: Sequence[Benchmark], task_ids: Mapping[str, str], left: list[str]
) -> dict[str, str]:
    """Return a file for each benchmark on the Hub that was run as a whole, by its place.

    Args:
        run: The run.
        benchmarks: Its benchmarks.
        task_ids: By the name of a task what the benchmark calls it, if not the same.
        left: Gets what is left out, in words.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    made = {}
    for benchmark in benchmarks:
        known, scored = published(benchmark.name), benchmark.score
        if known is None or known.hub_id is None:
            left.append(f"{benchmark.name}: no benchmark on the Hub")
            continue
        if scored is None:
            left.append(f"{benchmark.name}: no score, as rows are missing")
            continue
        metric = scored
        if metric.name != "score" and (run.limit or benchmark.metadata.get("data")):
            left.append(f"{benchmark.name}: run with --limit, or on a copy that may be a part")
            continue
        entry = EvalResultEntry(
            dataset_id=known.hub_id,
            task_id=task_ids.get(benchmark.name, benchmark.name),
            value=metric.value,
            dataset_revision=benchmark.metadata.get("data_revision"),
            date=run.day,
            notes=f"{metric.name}, {model_name(run)}, lm-eval {run.version} with drsow-plugin",
        )
        text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
        made[f".eval_results/{benchmark.name}.yaml"] = text
    return made
