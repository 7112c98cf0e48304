"""Our section of the data set card, written from the report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

import jinja2

from drsow_plugin.publishing.readme import BEGIN, END

FOLDER = "drsow"  # of the repository, for what belongs to the card
_DATA_FILES = {".jsonl", ".json", ".parquet", ".csv", ".tsv", ".txt", ".arrow", ".gz", ".zst"}
_SCORING = ("reduction", "end_of_turn", "overflow", "max_length")
_ANNOTATION = ("select", "min_margin", "seed", "relabel", "messages", "keep_unusable")
_COUNTS = ("rows", "scored", "pairs", "swapped")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Published:
    """What the card has to know of the data set beside the report.

    Attributes:
        repo_id: ``owner/name``.
        rows: Number of rows of each split.
        columns: Names of the columns.
        pictures: Names of the pictures in ``FOLDER``.
        revision: Branch that the rows are on, if not the main one.
    """

    repo_id: str
    rows: Mapping[str, int]
    columns: Sequence[str]
    pictures: Sequence[str]
    revision: str | None = None


def render_section(report: Mapping[str, Any], published: Published) -> str:
    """Return our section of the card, with its markers around it and no line for what is absent."""
    pair = report["pair"]
    splits = report["splits"]
    text = _template().render(
        report=report,
        published=published,
        folder=FOLDER,
        source=_input(report.get("input")),
        sides=_table([_side(pair[name], name) for name in ("strong", "weak")], transpose=True),
        scoring=_settings(pair.get("scoring"), _SCORING),
        annotation=_settings(report.get("annotation"), _ANNOTATION),
        counts=_table([_counts("split", name, split) for name, split in splits.items()]),
        accuracies=_table([_accuracy("split", name, split) for name, split in splits.items()]),
        groups={
            name: _table(
                [
                    {
                        **_counts("group", group, found),
                        **_accuracy("group", group, found),
                        **_margins("group", group, found),
                    }
                    for group, found in split["groups"].items()
                ]
            )
            for name, split in splits.items()
            if split.get("groups")
        },
        margins=_table([_margins("split", name, split) for name, split in splits.items()]),
        columns=_table(
            [
                {"column": f"`{name}`", "holds": said}
                for name, said in (report.get("columns") or {}).items()
            ]
        ),
        versions=", ".join(f"{k} {v}" for k, v in (pair.get("versions") or {}).items() if v),
        training=_training(report, published),
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    # A prompt quoted in the section must not end it.
    return f"{BEGIN}\n{text.replace('<!-- drsow:', '<!-- drsow :')}\n{END}"


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
        finalize=lambda value: "" if value is None else value,
    )
    environment.filters |= {"fence": _fence, "json": _json}
    source = resources.files("drsow_plugin.publishing").joinpath("dataset_card.md")
    return environment.from_string(source.read_text(encoding="utf-8"))


def _fence(text: object, language: str = "text") -> str:
    """Return a code block whose fence is longer than any run of back-ticks in the text."""
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", str(text)))])
    return f"{ticks}{language}\n{text}\n{ticks}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _table(rows: Iterable[Mapping[str, object]], *, transpose: bool = False) -> str:
    """Return a Markdown table without the columns that are empty in every row.

    Args:
        rows: Cells by name of the column; the first column names the row.
        transpose: Whether each row is written as a column.

    Returns:
        The table, or nothing where nothing but the names of the rows is known.
    """
    listed = [dict(row) for row in rows]
    names = list(dict.fromkeys(name for row in listed for name in row))
    names = [name for name in names if any(row.get(name) not in (None, "") for row in listed)]
    if len(names) < 2:
        return ""
    grid: list[list[object]] = [[*names], *([row.get(name) for name in names] for row in listed)]
    if transpose:
        grid = [list(column) for column in zip(*grid, strict=True)]
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in grid]
    return "\n".join([lines[0], "|" + " --- |" * len(grid[0]), *lines[1:]])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return " ".join(str(value).replace("|", "\\|").split())


def _settings(found: Mapping[str, Any] | None, names: Iterable[str]) -> str:
    """Return the settings that are known as ``name value`` in one line."""
    known = {name: (found or {}).get(name) for name in names}
    return ", ".join(f"`{k}={_plain(v)}`" for k, v in known.items() if v is not None)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _input(name: str | None) -> str | None:
    if name is None or is_hub_dataset(name):
        return name and f"[{name}](https://huggingface.co/datasets/{name})"
    return ", ".join(f"`{PurePath(file).name}`" for file in name.split(", "))


def _side(side: Mapping[str, Any], name: str) -> dict[str, object]:
    """Return one side's column of the pair table; of a local path only its last component."""
    template = side.get("template")
    files = side.get("sha256")
    return {
        "": name,
        "model": _model(side.get("source"), files is not None),
        "revision": side.get("revision"),
        "architecture": side.get("architecture"),
        "dtype": side.get("dtype"),
        "quantization": side.get("quantization") and "yes",
        "adapter": _model(
            side.get("adapter"), "sha256" in (side.get("adapter_identity") or {"sha256": None})
        ),
        "adapter revision": side.get("adapter_revision"),
        "template": template and PurePath(template).name,
        "template SHA-256": _short(side.get("template_sha256")),
        "max_length": side.get("max_length"),
        "files, SHA-256": (
            isinstance(files, Mapping)
            and ", ".join(
                f"{PurePath(file).name} {_short(digest)}" for file, digest in files.items()
            )
        )
        or None,
    }


def _model(source: str | None, local: bool) -> str | None:
    if source is None:
        return None
    return f"`{PurePath(source).name}`" if local else f"[{source}](https://huggingface.co/{source})"


def _short(digest: str | None) -> str | None:
    return f"`{digest[:12]}`" if digest else None


def _counts(kind: str, name: str, split: Mapping[str, Any]) -> dict[str, object]:
    dropped = {reason: n for reason, n in (split.get("dropped") or {}).items() if n}
    return {
        kind: name,
        **{quantity: split.get(quantity) for quantity in _COUNTS},
        "dropped": ", ".join(f"{reason}: {n}" for reason, n in dropped.items()) or None,
    }


def _accuracy(kind: str, name: str, split: Mapping[str, Any]) -> dict[str, object]:
    accuracy = split.get("accuracy") or {}
    return {
        kind: name,
        "accuracy": _percent(accuracy),
        "pick the longer": _percent(split.get("longer")),
        "rows compared": accuracy.get("n"),
        "ties": accuracy.get("ties"),
    }


def _percent(found: Mapping[str, Any] | None) -> str | None:
    if not found or found.get("value") is None:
        return None
    error = found.get("stderr")
    spread = "" if error is None else f" ± {100 * error:.1f}"
    return f"{100 * found['value']:.1f}{spread} %"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _margins(kind: str, name: str, split: Mapping[str, Any]) -> dict[str, object]:
    quantiles = split.get("margin_quantiles") or {}
    return {kind: name} | {
        **{f"margin, {100 * float(q):g} %": _number(value) for q, value in quantiles.items()},
        "length correlation": _number(split.get("length_correlation")),
    }


def _training(report: Mapping[str, Any], published: Published) -> dict[str, Any]:
    """Return what the training example needs: a split, a model, columns and a filter."""
    annotation = report.get("annotation") or {}
    status = f"{annotation.get('prefix') or 'drsow_'}status"
    kept = annotation.get("keep_unusable", True) and status in published.columns
    splits = list(published.rows)
    return {
        "split": "train" if "train" in splits else splits[0],
        "model": _trainable(report["pair"]) or "your-name/your-model",
        "columns": [c for c in ("prompt", "chosen", "rejected") if c in published.columns],
        "status": status if kept else None,
    }


def _trainable(pair: Mapping[str, Any]) -> str | None:
    """Return the Hub id to train in the example: the weak model, unless it is a plain one."""
    for name in ("weak", "strong"):
        side = pair[name]
        if side.get("source") and "sha256" not in side and side.get("template") != "none":
            return str(side["source"])
    return None


def is_hub_dataset(name: object) -> bool:
    """Return whether a name looks like a data set of the Hub and like no file."""
    return (
        isinstance(name, str)
        and _HUB_ID.fullmatch(name) is not None
        and PurePath(name).suffix not in _DATA_FILES
        and not Path(name).exists()
    )
