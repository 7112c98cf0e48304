"""From data to a page: opened, read, and written into one file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.annotate.place import PAGE, REPORT, Place
from drsow_plugin.cache import storage_errors
from drsow_plugin.errors import ConfigError
from drsow_plugin.quality.labelled import LabelledData, open_labelled
from drsow_plugin.quality.logged import logged_files
from drsow_plugin.report.choice import choose
from drsow_plugin.report.findings import find
from drsow_plugin.report.labelled import of_labelled
from drsow_plugin.report.material import Material, ShownRow
from drsow_plugin.report.options import PageConfig
from drsow_plugin.report.page import GENERATOR, Page
from drsow_plugin.report.pictures import pictures
from drsow_plugin.report.samples import of_samples

if TYPE_CHECKING:
    from drsow_plugin.annotate.report import Report
    from drsow_plugin.report.svg import Chart
    from drsow_plugin.scoring.drsow import DrSoW


@dataclass(frozen=True)
class WrittenPage:
    """A page that is ready.

    Attributes:
        html: The file.
        charts: The pictures on it.
    """

    html: str
    charts: Sequence[Chart]


def open_material(
    name: str,
    config: PageConfig,
    labels: LabelConfig | None = None,
    **options: Any,
) -> Material:
    """Open labelled rows, or what lm-eval logged.

    Args:
        name: What 'drsow annotate' wrote, other labelled rows, or a folder or file of samples.
        config: What the page shows.
        labels: Where things are in labelled rows, where that is not as labelling writes it.
        **options: ``split``, ``name`` and ``revision`` of a Hub data set.

    Raises:
        DataError: It cannot be read, or is neither.
        HubError: The Hub does not have it or cannot be reached.
    """
    path = Path(name).expanduser()
    if not Place.of(path).at(REPORT).is_file() and (files := logged_files(path)):
        return of_samples(files, config.sample, config.seed)
    data = open_labelled(name, labels, **options)
    return of_labelled(data, config.sample, config.seed)


def material_of(data: LabelledData, config: PageConfig) -> Material:
    """Return labelled rows that are open already; see :func:`open_material`."""
    return of_labelled(data, config.sample, config.seed)


def write_page(material: Material, config: PageConfig, drsow: DrSoW | None = None) -> WrittenPage:
    """Return the page of some rows.

    Args:
        material: The rows.
        config: What the page shows.
        drsow: The pair of models that the log-probs of tokens are computed with; ``None`` for none.

    Raises:
        EngineError: A model failed.
    """
    numbers, rule = choose(material, config.rows, config.rule, config.seed)
    findings = find(material)
    remarks: list[str] = []
    if drsow is None:
        rows = material.texts(numbers.tolist())
    else:
        known = drsow.config.routing.known_column
        rows = with_tokens(material.texts(numbers.tolist(), known), drsow)
        if material.fingerprint and material.fingerprint != drsow.fingerprint:
            remarks.append(
                "The log-probs of tokens are of another pair, or other policies, than the rewards."
            )
    charts = pictures(material, findings, {row.number: row.id for row in rows})
    page = Page(material, findings, charts, rows, rule, remarks)
    return WrittenPage(page.html(), charts)


def page_files(data: Any, report: Report, name: str) -> dict[str, bytes]:
    """Return the page on rows that were labelled just now, and its pictures, by file name.

    Args:
        data: The rows, a ``Dataset`` or a ``DatasetDict``.
        report: The report on them.
        name: What errors call them.
    """
    config = PageConfig()
    page = write_page(material_of(LabelledData.of(data, name=name, report=report), config), config)
    pictures = {f"{chart.name}.svg": chart.file() for chart in page.charts}
    return {PAGE: page.html.encode(), **pictures}


def with_tokens(rows: Sequence[ShownRow], drsow: DrSoW) -> list[ShownRow]:
    """Return rows with the log-probs of the tokens of each response."""
    from drsow_plugin.report.tokens import TokenReader

    asked = [
        (place, at, response.text)
        for place, row in enumerate(rows)
        for at, response in enumerate(row.responses)
        if response.text is not None and row.prompt
    ]
    known = drsow.config.routing.known_column is not None
    views = TokenReader(drsow).read(
        [list(rows[place].prompt) for place, _, _ in asked],
        [text for _, _, text in asked],
        [rows[place].known_domain for place, _, _ in asked] if known else None,
    )
    found = {(place, at): view for (place, at, _), view in zip(asked, views, strict=True)}
    return [
        replace(
            row,
            responses=[
                replace(response, view=found.get((place, at)))
                for at, response in enumerate(row.responses)
            ],
        )
        for place, row in enumerate(rows)
    ]


def check_target(path: Path) -> None:
    """Check that a page may be written there, before any work is done for it.

    Raises:
        ConfigError: Something else is there, or the name is none of a page.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"The page is an HTML file, got {str(path)!r}. Give -o report.html.")
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a folder. Give the name of a file, such as x.html.")
    if path.exists():
        with path.open("rb") as file:
            if GENERATOR.encode() not in file.read(2048):
                raise ConfigError(
                    f"{str(path)!r} is there already, and 'drsow report' did not write it. Give "
                    "another name, or remove it."
                )


def save(path: Path, text: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        StorageError: There is no room, or nothing can be written there.
    """
    with storage_errors(f"{str(path)!r} cannot be written", "Give another name with -o."):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
