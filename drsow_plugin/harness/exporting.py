"""Results of lm-eval as files for stores of evaluations.

The formats are those of :mod:`~drsow_plugin.harness.evaluation_store` and
:mod:`~drsow_plugin.harness.hub_results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from drsow_plugin.cache import storage_errors
from drsow_plugin.errors import DataError
from drsow_plugin.harness.evaluation_store import records
from drsow_plugin.harness.exported import Relationship, benchmarks_of, evaluator_of
from drsow_plugin.harness.hub_results import entries
from drsow_plugin.harness.results import read_runs

Format = Literal["every-eval-ever", "hub"]


def export(
    results: str,
    output: str,
    *,
    format: Format = "every-eval-ever",
    model_id: str | None = None,
    organization: str,
    relationship: Relationship = "third_party",
    task_ids: Mapping[str, str] | None = None,
) -> tuple[list[Path], list[str]]:
    """Write the results of lm-eval as files that a store of evaluations takes.

    Args:
        results: A ``results_….json`` of lm-eval, or a folder with such files.
        output: A folder, the top of the store or of the model's repository.
        format: ``every-eval-ever``: records of the schema of that name; ``hub``:
            ``.eval_results/NAME.yaml``, as the Hub takes them in a model's repository.
        model_id: What the model or pair is called there; by default the Hub id of a single
            model.
        organization: Who ran the evaluation.
        relationship: What they are to those who made the model.
        task_ids: By the name of a task what the Hub's benchmark calls it, if not the same.

    Returns:
        The files, and what was left out, in words.

    Raises:
        DataError: There are no results, or nothing in them can be exported.
        ConfigError: The model has no name that others could know.
        StorageError: The files cannot be written.
    """
    files: dict[str, str] = {}
    left: list[str] = []
    for run in read_runs(results):
        evaluator = evaluator_of(run, model_id, organization, relationship)
        made = (
            entries(run, benchmarks_of(run), task_ids or {}, left)
            if format == "hub"
            else records(run, benchmarks_of(run), evaluator, left)
        )
        for name, text in made.items():
            if files.setdefault(name, text) != text:
                raise DataError(
                    f"{results} holds two runs for {name}. Give one results file at a time."
                )
    if not files:
        raise DataError(f"Nothing in {results} can be exported: {'; '.join(left) or 'no scores'}.")
    return _write(Path(output).expanduser(), files), left


def _write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    written = []
    with storage_errors(f"{folder} cannot be written", "Name another folder."):
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written
