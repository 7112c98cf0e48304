"""The user's own prompts with rated candidates: which is picked, and how good that one is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from drsow_plugin.annotate.items import listed
from drsow_plugin.errors import DataError
from drsow_plugin.harness.benchmarks.loading import (
    SOURCE,
    Splits,
    load_rows,
    logger,
    require_columns,
    texts,
)
from drsow_plugin.harness.documents import comparisons, share_won, top_of
from drsow_plugin.harness.metrics import Metrics, lengths_of, preference_metrics
from drsow_plugin.harness.tasks import PREFERENCE_METRICS, PreferenceTask, metric
from drsow_plugin.prompts import as_messages

_COLUMNS = ("prompt", "responses", "ratings")
_NAMED = (*_COLUMNS, "domain")
METADATA = SOURCE | {f"{name}_column" for name in _NAMED}
_ADVICE = f"Name the columns with --metadata {' '.join(f'{name}_column=…' for name in _COLUMNS)}."


def load(**metadata: Any) -> Splits:
    """Load the data that ``--metadata data=…`` names.

    Returns:
        The rows that have something to choose from: those where all candidates are rated the
        same are left out, and the log says how many.

    Raises:
        DataError: No data was named, a column is missing, or a row has not one rating for each
            of at least two responses, or no row has two different ones.
    """
    data = str(metadata.get("data") or "")
    if not data:
        raise DataError(
            "The task 'best_of_n' evaluates your own data: name a parquet, jsonl or csv file, a "
            "saved data set or a Hub id with --metadata data=FILE."
        )
    columns = {name: str(metadata.get(f"{name}_column") or name) for name in _NAMED}
    loaded = load_rows(data, metadata, METADATA)
    needed = [columns[name] for name in _COLUMNS]
    needed += [columns["domain"]] if "domain_column" in metadata else []
    require_columns(loaded, needed, data, _ADVICE)
    return {"test": _normalised(loaded, data, columns)}


def _normalised(data: datasets.Dataset, name: str, columns: Mapping[str, str]) -> datasets.Dataset:
    """Return rows of prompt (messages), responses (texts), ratings (numbers) and domain."""
    rows = [_row(row, f"{name}, row {index}", columns) for index, row in enumerate(data)]
    kept = [row for row in rows if min(row["ratings"]) < max(row["ratings"])]
    if not kept:
        raise DataError(
            f"{name}: no row has candidates with different ratings, so none is better than "
            "another. Give rows of which some have."
        )
    if len(kept) < len(rows):
        logger.warning(
            "%s: in %d of %d rows all candidates are rated the same; they are left out.",
            name,
            len(rows) - len(kept),
            len(rows),
        )
    return datasets.Dataset.from_list(kept)


def _row(row: Mapping[str, Any], where: str, columns: Mapping[str, str]) -> dict[str, Any]:
    responses = texts(row[columns["responses"]], f"{where}, responses")
    ratings = listed(row[columns["ratings"]])
    if not isinstance(ratings, list) or len(ratings) != len(responses):
        got = f"{len(ratings)}" if isinstance(ratings, list) else repr(ratings)
        raise DataError(
            f"{where}: ratings are a list with one number for each of the {len(responses)} "
            f"responses, got {got:.80}. Rate every response."
        )
    for rating in ratings:
        if not isinstance(rating, int | float) or not math.isfinite(rating):
            raise DataError(
                f"{where}: a rating is a number, got {rating!r:.80}. Rate every response, or "
                "leave out those without a rating."
            )
    domain = {"domain": row[columns["domain"]]} if columns["domain"] in row else {}
    return {
        "prompt": [dict(message) for message in as_messages(row[columns["prompt"]], where)],
        "responses": responses,
        "ratings": [float(rating) for rating in ratings],
        **domain,
    }


def rated_metrics(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> Metrics:
    """Return what the candidates of one prompt count.

    Args:
        doc: The row, with ``responses`` and ``ratings``.
        results: ``(reward, _)`` of each response; NaN where it has no reward.

    Returns:
        Those of :func:`~drsow_plugin.harness.metrics.preference_metrics`, and ``acc_pairs``:
        the share of pairs with different ratings in which the better rated has the higher
        reward; ``rating``: that of the response with the highest reward (the mean of those that
        tie; of all where a reward is missing); beside it ``rating_best``, ``rating_random``
        (the mean of all) and ``rating_longest``.
    """
    ratings, rewards = doc["ratings"], [reward for reward, _ in results]
    random = _mean(ratings)
    missing = any(map(math.isnan, rewards))
    return {
        **preference_metrics(doc, results),
        "acc_pairs": share_won(rewards, comparisons(doc)),
        "rating": random if missing else _mean([ratings[i] for i in top_of(rewards)]),
        "rating_best": max(ratings),
        "rating_random": random,
        "rating_longest": _mean([ratings[i] for i in top_of(lengths_of(doc))]),
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


class BestOfNTask(PreferenceTask):
    """Rated candidates: the metrics of preferences, and the rating of what is picked."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Add the metrics of ratings to those of preferences."""
        ratings = ("rating", "rating_best", "rating_random", "rating_longest")
        metrics = [metric(name, "mean") for name in ("acc_pairs", *ratings)]
        super().__init__(
            {
                **config,
                "process_results": rated_metrics,
                "metric_list": [*PREFERENCE_METRICS, *metrics],
            }
        )
