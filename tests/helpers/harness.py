"""Tasks run by lm-eval, with a model that says what a function says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from drsow_plugin import tasks_path


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
    return results
