"""Our section of the data set card, written from the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import jinja2

from drsow_plugin.annotate.layout import PROMPT
from drsow_plugin.printable import json_line
from drsow_plugin.publishing.markdown import (
    Markdown,
    code,
    conversation,
    fence,
    json,
    link,
    settings,
    short,
    table,
)
from drsow_plugin.publishing.readme import BEGIN, END

if TYPE_CHECKING:
    from drsow_plugin.annotate.report import Report
    from drsow_plugin.annotate.statistics import Statistics
    from drsow_plugin.stats import Proportion

FOLDER = "drsow"  # of the repository, for what belongs to the card
_DATA_FILES = {".jsonl", ".json", ".parquet", ".csv", ".tsv", ".txt", ".arrow", ".gz", ".zst"}
_TRAINED = ("prompt", "chosen", "rejected")
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_HUB_MODEL = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")  # some old ones have no owner


@dataclass(frozen=True)
class Published:
    """What the card has to know of the data set beside the report.

    Attributes:
        repo_id: ``owner/name``.
        rows: Number of rows of each split.
        columns: Names of the columns.
        pictures: Names of the plots in ``FOLDER``.
        has_page: Whether there is a page, ``report.html`` in ``FOLDER``.
        revision: Branch that the rows are on, if not the main one.
    """

    repo_id: str
    rows: Mapping[str, int]
    columns: Sequence[str]
    pictures: Sequence[str]
    has_page: bool = False
    revision: str | None = None


def render_section(report: Report, published: Published) -> str:
    """Return our section of the card, with its markers around it and no line for what is absent."""
    pair = report.pair
    splits = report.splits
    text = _template().render(
        report=report,
        published=published,
        folder=FOLDER,
        own_labels=keeps_labels(report) or report.kind == "single",
        source=_input(report.input),
        sides=table([_side(pair[name], name) for name in ("strong", "weak")], transpose=True),
        counts=table({"split": n, **_counts(split)} for n, split in splits.items()),
        accuracies=table({"split": n, **_accuracy(split)} for n, split in splits.items()),
        groups={name: _parts("group", split.groups) for name, split in splits.items()},
        by_domain={name: _parts("domain", split.domains) for name, split in splits.items()},
        domains=table([_domain(domain) for domain in report.domains or []]),
        margins=table({"split": n, **_margins(split)} for n, split in splits.items()),
        columns=table({"column": code(n), "holds": text} for n, text in report.columns.items()),
        versions=", ".join(f"{k} {v}" for k, v in (pair.get("versions") or {}).items() if v),
        training=_training(report, published),
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    # A prompt quoted in the section must not end it.
    return f"{BEGIN}\n{text.replace('<!-- drsow:', '<!-- drsow :')}\n{END}"


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,  # by `finalize`, as Markdown wants it
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
        finalize=Markdown.escape,
    )
    filters = (code, conversation, fence, json, origin, percent, settings, short)
    environment.filters |= {function.__name__: function for function in filters}
    source = resources.files("drsow_plugin.publishing").joinpath("dataset_card.md")
    return environment.from_string(source.read_text(encoding="utf-8"))


def _input(name: str | None) -> Markdown | None:
    if name is None:
        return None
    if is_hub_dataset(name):
        return link(name, f"https://huggingface.co/datasets/{name}")
    return Markdown(", ").join(code(PurePath(file).name) for file in name.split(", "))


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
        "template SHA-256": short(side.get("template_sha256")),
        "template date": side.get("template_date"),
        "template arguments": side.get("template_args") and json_line(side["template_args"]),
        "max_length": side.get("max_length"),
        "files, SHA-256": Markdown(", ").join(
            Markdown("{} {}").format(PurePath(file).name, short(digest))
            for file, digest in (files.items() if isinstance(files, Mapping) else ())
        ),
    }


def _model(source: str | None, local: bool) -> Markdown | None:
    if source is None:
        return None
    if local or not _HUB_MODEL.fullmatch(source):
        return code(PurePath(source).name)
    return link(source, f"https://huggingface.co/{source}")


def _parts(kind: str, parts: Mapping[str, Statistics] | None) -> Markdown:
    """Return a table of the statistics of groups or domains."""
    return table(
        {kind: code(name), **_counts(part), **_accuracy(part), **_margins(part)}
        for name, part in (parts or {}).items()
    )


def _counts(of: Statistics) -> dict[str, object]:
    dropped = ", ".join(f"{reason}: {n}" for reason, n in of.dropped.items() if n)
    counts = {name: getattr(of, name) for name in ("rows", "scored", "pairs", "swapped")}
    return {**counts, "dropped": dropped}


def _accuracy(of: Statistics) -> dict[str, object]:
    return {
        "accuracy": percent(of.accuracy),
        "pick the longer": percent(of.longer),
        "rows compared": of.accuracy and of.accuracy.n,
        "ties": of.accuracy and of.accuracy.ties,
    }


def _margins(of: Statistics) -> dict[str, object]:
    quantiles = (of.margin_quantiles or {}).items()
    return {
        **{f"margin, {100 * float(q):g} %": _number(value) for q, value in quantiles},
        "length correlation": _number(of.length_correlation),
    }


def _domain(domain: Mapping[str, Any]) -> dict[str, object]:
    return {
        "domain": code(domain["name"]),
        "from": origin(domain.get("plugin") or {}),
        "applied": domain.get("parts"),
        "to": domain.get("side") and {"both": "both models"}.get(domain["side"], "strong model"),
        "examples a prompt gets": domain.get("shots"),
    }


def origin(plugin: Mapping[str, Any]) -> str:
    """Return the distribution of a plugin, or the name of its file or module."""
    origin = " ".join(filter(None, (plugin.get("origin"), plugin.get("version"))))
    return origin or PurePath(plugin.get("name", "")).name


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def percent(share: Proportion | None) -> str | None:
    """Return a share in percent with its interval, or else with its standard error."""
    if share is None:
        return None
    if share.low is not None and share.high is not None:
        return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"
    spread = "" if share.stderr is None else f" ± {100 * share.stderr:.1f}"
    return f"{100 * share.value:.1f}{spread} %"


def keeps_labels(report: Report) -> bool:
    """Return whether which response is chosen is what the source data says."""
    return report.kind == "pairs" and report.annotation.get("relabel", "keep") == "keep"


def _training(report: Report, published: Published) -> dict[str, Any]:
    """Return what the training example needs: a split, a model, columns and a filter."""
    annotation = report.annotation
    status = f"{annotation.get('prefix') or 'drsow_'}status"
    kept = annotation.get("keep_unusable", True) and status in published.columns
    splits = list(published.rows)
    renamed = _renamed(annotation, published.columns)
    columns = {*published.columns, *renamed.values()}
    return {
        "split": "train" if "train" in splits else splits[0],
        "model": _trainable(report.pair) or "your-name/your-model",
        "renamed": renamed,
        "columns": [c for c in _TRAINED if c in columns],
        "status": status if kept else None,
    }


def _renamed(annotation: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    """Return the columns that have another name than the trainer reads, with that name."""
    renamed = {}
    for name in _TRAINED:
        names = (annotation.get(f"{name}_column"), *(PROMPT if name == "prompt" else ()))
        other = next((n for n in names if n in columns), None)
        if name not in columns and other is not None:
            renamed[other] = name
    return renamed


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
