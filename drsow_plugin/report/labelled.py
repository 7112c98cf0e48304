"""Labelled rows as what a page is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from drsow_plugin.annotate.items import Item
from drsow_plugin.annotate.report import Report
from drsow_plugin.bootstrap import wins
from drsow_plugin.errors import DataError, unknown_name
from drsow_plugin.quality.labelled import Batch, LabelledData
from drsow_plugin.quality.rows import Rows, read_labelled
from drsow_plugin.records import NO_DOMAIN
from drsow_plugin.redaction import without_local_paths, without_tokens
from drsow_plugin.report.material import Material, ShownResponse, ShownRow, spelled

CUT = "prompt tokens cut from the left"
"""What the notes say of a row whose prompt was cut; see ``annotate.columns``."""

_NUMBERS = {"reward": "reward", "strong": "strong_logprob", "weak": "weak_logprob"}
_SIDES = ("chosen", "rejected")


def of_labelled(data: LabelledData, max_rows: int | None, seed: int) -> Material:
    """Read labelled rows.

    Args:
        data: The rows.
        max_rows: Rows that figures are taken of at most, drawn at random; ``None`` for all.
        seed: Of that draw.

    Raises:
        DataError: The columns of a row do not go together.
    """
    rows = read_labelled(data, max_rows, seed)
    report = _published(data.report)
    domains, codes, truncated = _beside(data, rows)
    left_out, failures = _left_out(data, report, rows)
    layouts = data.layouts.values()
    return Material(
        name=_name(data, report),
        kind=data.kind,
        rows=rows.rows,
        of_rows=rows.of_rows,
        numbers=rows.numbers,
        pairs=rows.pairs,
        domain=codes,
        groups=[name or "(none)" for name in rows.groups],
        domains=domains,
        group_kind=next((layout.group for layout in layouts if layout.group), "group"),
        rewards=rows.responses.reward,
        lengths=rows.responses.strong_tokens,
        length_unit="tokens of the strong model",
        failures=failures,
        left_out=left_out,
        truncated=truncated,
        texts=partial(_shown, data),
        pair=None if report is None else report.pair,
        fingerprint=None if report is None else report.fingerprint,
        facts=_facts(report),
    )


def _published(report: Report | None) -> Report | None:
    """Return a report without what is of this machine alone: pages are given to others."""
    if report is None:
        return None
    from huggingface_hub import get_token

    return Report.from_values(without_local_paths(without_tokens(report.values, get_token())))


def _name(data: LabelledData, report: Report | None) -> str:
    named = report.input if report else None
    return named or data.name.rstrip("/").rpartition("/")[2] or data.name


def _facts(report: Report | None) -> dict[str, str]:
    if report is None:
        return {}
    facts = {"labelled on": report.created, "command": report.command}
    facts["labelling"] = spelled({n: v for n, v in report.annotation.items() if n != "prefix"})
    return {name: value for name, value in facts.items() if value}


def _left_out(data: LabelledData, report: Report | None, rows: Rows) -> tuple[int, Counter[str]]:
    """Return how many rows are no longer there, and why these and others have no reward or pair."""
    if report is None or report.keeps_unusable:
        return 0, rows.failures
    dropped = Counter[str]()
    for name, split in report.splits.items():
        if name in data.splits:
            dropped.update({why: int(number) for why, number in split.dropped.items()})
    return sum(dropped.values()), dropped + rows.failures


def _beside(data: LabelledData, rows: Rows) -> tuple[list[str], np.ndarray, int]:
    """Return the domains, the domain of each pair, and how many rows had their prompt cut."""
    names: dict[str, int] = {}
    of_row = np.full(len(rows.numbers), -1)
    truncated = 0
    columns = [f"{data.prefix}{name}" for name in ("domain", "notes")]
    for first, split in zip(data.first_rows(), data.splits.values(), strict=True):
        inside = (rows.numbers >= first) & (rows.numbers < first + len(split))
        own = rows.numbers[inside] - first
        there = [name for name in columns if name in split.column_names]
        if not len(own) or not there:
            continue
        found = split.with_format(None).select_columns(there).select(own)
        codes = []
        for batch in found.iter(batch_size=1000):
            truncated += sum(CUT in (note or "") for note in batch.get(columns[1], []))
            if columns[0] in batch:
                named = (NO_DOMAIN if name is None else str(name) for name in batch[columns[0]])
                codes += [names.setdefault(name, len(names)) for name in named]
        if codes:
            of_row[inside] = codes
    return list(names), of_row[np.searchsorted(rows.numbers, rows.pairs.row)], truncated


def _shown(data: LabelledData, numbers: Sequence[int], known: str | None = None) -> list[ShownRow]:
    """Return rows with their texts, by their numbers over all splits, which are in order.

    Args:
        data: The rows.
        numbers: Which of them.
        known: Column that names the domain of each prompt, where it is needed.

    Raises:
        DataError: There is no such column.
    """
    if known is not None:
        for split in data.splits.values():
            if known not in split.column_names:
                raise DataError(
                    f"domain_column: {unknown_name('column', known, split.column_names)}"
                )
        layouts = {name: replace(of, domain=known) for name, of in data.layouts.items()}
        data = replace(data, layouts=layouts)
    asked = np.asarray(numbers)
    found: list[ShownRow] = []
    for first, (name, split) in zip(data.first_rows(), data.splits.items(), strict=True):
        own = asked[(asked >= first) & (asked < first + len(split))] - first
        for batch in data.batches(name, own):
            found += [_row(data, batch, at, first) for at in range(len(batch))]
    return found


def _row(data: LabelledData, batch: Batch, at: int, first: int) -> ShownRow:
    values = {name: column[at] for name, column in batch.values.items()}
    item, ratings = batch.items[at], batch.ratings[at]
    responses = _responses(data.kind, item, values, ratings)
    chosen: int | None = 0
    rejected: int | None = 1
    if data.kind == "candidates":
        chosen, rejected = values.get("chosen_index"), values.get("rejected_index")
    lengths = [response.length for response in responses]
    length = lengths[0] if data.kind == "single" and lengths else None
    margin = values.get("margin")
    if margin is not None and chosen is not None and rejected is not None:
        length = _minus(lengths[chosen], lengths[rejected])
    return ShownRow(
        id=f"{batch.split}-{batch.numbers[at]}",
        number=first + batch.numbers[at],
        prompt=item.prompt,
        responses=responses,
        chosen=None if data.kind == "single" or margin is None else chosen,
        rejected=None if data.kind == "single" or margin is None else rejected,
        margin=margin,
        right=_right(data.kind, values, ratings),
        length=length,
        domain=str(values.get("domain") or ""),
        group=batch.groups[at],
        status=values.get("status") or "ok",
        notes=values.get("notes") or "",
        known_domain=item.domain,
    )


def _responses(
    kind: str, item: Item, values: Mapping[str, Any], ratings: Sequence[float | None] | None
) -> list[ShownResponse]:
    numbers: list[dict[str, Any]]
    if kind == "pairs":
        numbers = [{n: values.get(f"{s}_{of}") for n, of in _NUMBERS.items()} for s in _SIDES]
        lengths = [values.get(f"{side}_strong_tokens") for side in _SIDES]
        roles = list(_SIDES)
    elif kind == "single":
        numbers = [{n: values.get(of) for n, of in _NUMBERS.items()}]
        lengths, roles = [values.get("strong_tokens")], ["response"]
    else:
        lists = {n: values.get(f"{of}s") or [] for n, of in _NUMBERS.items()}
        lengths = values.get("strong_tokens") or []
        numbers = [{n: of[at] for n, of in lists.items()} for at in range(len(lengths))]
        roles = [f"candidate {at + 1}" for at in range(len(lengths))]
        for index, role in (("chosen_index", "chosen"), ("rejected_index", "rejected")):
            if values.get(index) is not None:
                roles[values[index]] += f", {role}"
    texts = chain(item.responses, [None] * len(roles))
    rated = chain(ratings or [], [None] * len(roles))
    return [
        ShownResponse(role, text, length=length, rating=rating, **number)
        for role, text, length, rating, number in zip(
            roles, texts, lengths, rated, numbers, strict=False
        )
    ]


def _right(
    kind: str, values: Mapping[str, Any], ratings: Sequence[float | None] | None
) -> float | None:
    """Return how the margin agrees with what the data said before it was labelled."""
    margin = values.get("margin")
    if margin is None or kind == "single":
        return None
    if kind == "pairs":
        return 0.0 if values.get("swapped") else float(wins(np.array(margin)))
    if ratings is None:
        return None
    more, less = ratings[values["chosen_index"]], ratings[values["rejected_index"]]
    difference = _minus(more, less)
    return None if not difference else float(difference > 0)


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second
