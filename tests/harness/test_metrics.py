"""Our metrics in a task file of a user's own, and their names in lm-eval's registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.harness import Scorer
from lm_eval import simple_evaluate
from lm_eval.api.registry import aggregation_registry, metric_registry
from lm_eval.tasks import TaskManager

OWN = """
task: own
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/docs.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{[chosen, rejected]}}"
doc_to_target: 0
target_delimiter: ""
process_results: !function drsow_plugin.harness.metrics.preference_metrics
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_tie_half, aggregation: mean, higher_is_better: true}
  - {metric: acc_longer, aggregation: mean, higher_is_better: true}
  - {metric: margin, aggregation: drsow_mean_margin, higher_is_better: true}
  - {metric: ties, aggregation: mean, higher_is_better: false}
  - {metric: overflow, aggregation: mean, higher_is_better: false}
"""


def test_a_task_file_names_our_metrics_as_results_do_and_the_registry_by_names_of_ours(
    tmp_path: Path,
) -> None:
    rows = [{"prompt": "Q?", "chosen": "yes", "rejected": no} for no in ("n", "nay", "never")]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(OWN.replace("FOLDER", str(tmp_path)))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    results = simple_evaluate(
        model=Scorer(len), tasks=["own"], task_manager=manager, bootstrap_iters=10
    )
    assert results is not None
    own = results["results"]["own"]
    assert own["acc,none"] == pytest.approx(1 / 3)
    assert own["acc_tie_half,none"] == own["acc_longer,none"] == pytest.approx(1 / 2)
    assert own["margin,none"] == pytest.approx((2 + 0 - 2) / 3)
    named = {f"{name},none" for name in (*metric_registry, *aggregation_registry)} & {*own}
    assert named == {"acc,none"}  # lm-eval's own
    ours = {name for name in metric_registry if name.startswith("drsow_")}
    assert ours == {"drsow_acc_tie_half", "drsow_acc_longer", "drsow_margin"}
