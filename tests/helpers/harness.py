"""Tasks run by lm-eval, with a model that says what a function says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.tasks import TaskManager

from drsow_plugin import tasks_path

NEXT = ConfigurableTask is Task
"""Whether this lm-eval is one after 0.4.13."""


def request(kind: str, arguments: tuple[Any, ...], task: str, document: int = 0) -> Instance:
    """Return a request as a task of lm-eval makes it."""
    named = {"task_name": task, "doc_id": document} if NEXT else {"metadata": (task, document, 1)}
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, **named)


def metadata_argument(data: object) -> str:
    """Return what --metadata takes to name data; the pre-release takes JSON alone."""
    return json.dumps({"data": str(data)}) if NEXT else f"data={data}"


class Scorer(LM):
    """An lm-eval model that gives each response what a function says."""

    def __init__(self, value: Callable[[str], float]) -> None:
        super().__init__()
        self.value = value
        self.contexts: list[str] = []

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        self.contexts += [request.args[0] for request in requests]
        return [(self.value(request.args[1]), False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError


def run(model: LM, tasks: list[str], **options: Any) -> dict[str, Any]:
    metadata = options.pop("metadata", None)
    manager = TaskManager(include_path=tasks_path(), include_defaults=False, metadata=metadata)
    results = simple_evaluate(
        model=model, tasks=tasks, task_manager=manager, bootstrap_iters=10, **options
    )
    assert results is not None
    for part in ("results", "n-samples", "configs"):  # later names are GROUP::TASK
        results[part] = {name.split("::")[-1]: of for name, of in results[part].items()}
    return results
