"""The page of a study, once as Markdown and once as HTML that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from drsow_plugin.bootstrap import LEVEL, Estimate
from drsow_plugin.printable import printable
from drsow_plugin.publishing.markdown import Markdown, table
from drsow_plugin.study.findings import Findings, PairResult
from drsow_plugin.study.plots import HEAT_MAP, scatter_names
from drsow_plugin.study.text import chosen, correlation, over, percent, size, spelled

_ROWS, _PARTS = 30, 10
"""Pairs that the page shows; the tables beside it have all."""


@dataclass(frozen=True)
class Heading:
    """A heading, of level 1 or 2."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, as plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table: cells by name of the column."""

    rows: Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Picture:
    """A picture that is beside the page as NAME.png and NAME.svg."""

    name: str
    text: str


Block = Heading | Paragraph | Table | Picture


def blocks(report: Findings) -> Iterator[Block]:
    """Yield what the page says."""
    yield Heading(f"Which pair: {report.data}", 1)
    yield Paragraph(_intro(report))
    if report.left_out:
        yield Paragraph(
            "Every pair is measured on the same rows. Left out were (a row may count under "
            "several reasons):"
        )
        yield Table([{"reason": r, "rows": count} for r, count in report.left_out.items()])
    if report.failed:
        yield Paragraph("These models are missing:")
        yield Table([{"model": name, "reason": r} for name, r in report.failed.items()])
    yield Heading("Which pair to take")
    yield Paragraph(chosen(report))
    if report.choice:
        yield Table(
            [
                {"strong": s, "weak": w, "best in % of resamples": f"{100 * share:.0f}"}
                for s, w, share in report.choice.rivals
            ]
        )
    yield from _models(report)
    yield from _pairs(report)
    yield from _laws(report)
    yield from _how(report)


def _intro(report: Findings) -> str:
    return (
        f"{len(report.models)} models and their {len(report.pairs)} ordered pairs on "
        f"{report.rows:,} of {report.of_rows:,} rows ({report.prompts:,} prompts) of "
        f"{report.data}; {report.date}, drsow-plugin {report.version}. The reward of a response is "
        "its log-prob under the strong model minus that under the weak one; the accuracy of a pair "
        "is the share of rows whose chosen response has the higher reward, a tie counting half. "
        "Brackets hold "
        f"{100 * LEVEL:.0f} % intervals."
    )


def _models(report: Findings) -> Iterator[Block]:
    yield Heading("Models and baselines")
    yield Table(
        [
            {
                "model": model.name,
                "source": spelled(model.options),
                "memory": size(model.memory),
                "cost": model.cost,
                "likelihood alone, accuracy (%)": percent(model.likelihood),
                "log-prob of chosen (nats a byte)": f"{model.loglikelihood:.3f}",
                **{name: f"{value:g}" for name, value in model.scores.items()},
                "prompts cut": model.truncated or None,
            }
            for model in report.models
        ]
    )
    yield Paragraph(f"Taking the longer response is right in {percent(report.length)} %.")


def _pairs(report: Findings) -> Iterator[Block]:
    yield Heading("Pairs")
    yield Picture(HEAT_MAP, "Accuracy of every ordered pair")
    ranked = report.ranked()
    if len(ranked) > _ROWS:
        yield Paragraph(f"The first {_ROWS} of {len(ranked)} pairs; all are in pairs.csv.")
    yield Table([_pair(pair) for pair in ranked[:_ROWS]])
    for what, counted in (("section", report.sections), ("subset", report.subsets)):
        if counted:
            yield Paragraph(
                f"Accuracy (%) by {what} of the first {min(_PARTS, len(ranked))} pairs; all are in "
                "parts.csv."
            )
            yield Table(
                [
                    {
                        what: f"{name} ({count:,})",
                        **{
                            over(pair): percent(_part(pair, what, name)) for pair in ranked[:_PARTS]
                        },
                    }
                    for name, count in counted.items()
                ]
            )


def _pair(pair: PairResult) -> dict[str, object]:
    return {
        "strong": pair.strong,
        "weak": pair.weak,
        "accuracy (%)": percent(pair.accuracy),
        "ties": pair.ties or None,
        "longer preferred (%)": None if pair.longer is None else f"{100 * pair.longer:.1f}",
        "mean margin": f"{pair.margin:.2f}",
        "memory": size(pair.memory),
        "cost": pair.cost,
    }


def _part(pair: PairResult, what: str, name: str) -> Estimate:
    return (pair.sections if what == "section" else pair.subsets)[name]


def _laws(report: Findings) -> Iterator[Block]:
    if not report.laws:
        return
    yield Heading("Does the gap predict the accuracy?")
    yield Paragraph(
        "The gap of a pair is a score of its strong model minus that of its weak one. All ordered "
        "pairs make a cloud that is symmetric about gap 0 and accuracy 50 %; its correlation says "
        "whether the better model should be the strong one. Over the pairs whose strong model has "
        "the higher score (upward) it says only whether a wider gap makes a better reward."
    )
    yield Table(
        [
            {
                "gap in": found.score,
                "Pearson": correlation(found.pearson),
                "Spearman": correlation(found.spearman),
                "Pearson, upward": correlation(found.pearson_upward),
                "Spearman, upward": correlation(found.spearman_upward),
                "upward pairs above 50 %": ""
                if found.agreeing is None
                else f"{100 * found.agreeing:.0f} %",
            }
            for found in report.laws
        ]
    )
    for name, found in scatter_names(report).items():
        yield Picture(name, f"Accuracy against the gap in {found.score}")


def _how(report: Findings) -> Iterator[Block]:
    yield Heading("How this was measured")
    yield Paragraph(
        f"Intervals of accuracies: {report.resamples:,} resamples of prompts, each with all of its "
        "rows, the same for all pairs; percentiles. Intervals of correlations: models are drawn "
        "with replacement, and prompts too, because pairs share both; a resample has all pairs of "
        "two different models that were drawn (the pigeonhole bootstrap, Owen 2007). Gaps in "
        "likelihood accuracy and log-likelihood are taken from half of the prompts, and held "
        "against accuracies on the other half. What is to be expected on new rows: the choice "
        "among all candidates is repeated without each of several parts of the prompts, and its "
        "winner measured on that part."
    )
    settings = {**report.scoring, **report.options}
    given = {name: value for name, value in settings.items() if value is not None}
    yield Table([{"option": name, "value": str(value)} for name, value in given.items()])
    yield Paragraph(f"SHA-256 of the rows: {report.data_sha256}.")
    yield Table(
        [
            {"model": model.name, "what it is": spelled(_identity(model.identity))}
            for model in report.models
        ]
    )


def _identity(described: Mapping[str, object]) -> dict[str, object]:
    """Return the part of what identifies a model that a reader can check."""
    names = ("source", "revision", "architecture", "dtype", "template_sha256", "tokenizer_sha256")
    return {name: described[name] for name in names if described.get(name) is not None}


def to_markdown(page: Sequence[Block]) -> str:
    """Return a page as Markdown, with its pictures as files beside it."""
    return "\n\n".join(filter(None, map(_markdown, page))) + "\n"


def _markdown(block: Block) -> Markdown:
    if isinstance(block, Heading):
        return Markdown("{} {}").format(Markdown("#" * block.level), block.text)
    if isinstance(block, Paragraph):
        return Markdown.escape(block.text)
    if isinstance(block, Picture):
        return Markdown("![{}]({}.png)").format(block.text, Markdown(block.name))
    return table(block.rows)


_PAGE = Markup(
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
    "<title>{title}</title>\n<style>\n"
    "body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }}\n"
    "table {{ border-collapse: collapse; font-size: 85%; display: block; overflow-x: auto; }}\n"
    "th, td {{ border: 1px solid #ccc; padding: .2em .6em; text-align: left; }}\n"
    "img {{ max-width: 100%; }}\n"
    "</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
)


def to_html(page: Sequence[Block], pictures: Mapping[str, bytes]) -> str:
    """Return a page as HTML, with its pictures in it.

    Args:
        page: What it says.
        pictures: By file name; those that end in ``.svg`` are shown.
    """
    title = next(block.text for block in page if isinstance(block, Heading))
    body = Markup("\n").join(_html(block, pictures) for block in page)
    return str(_PAGE.format(title=printable(title), body=body))


def _html(block: Block, pictures: Mapping[str, bytes]) -> Markup:
    if isinstance(block, Heading):
        tag = Markup(f"h{block.level}")  # noqa: S704 (a number)
        return Markup("<{0}>{1}</{0}>").format(tag, printable(block.text))
    if isinstance(block, Paragraph):
        return Markup("<p>{}</p>").format(printable(block.text))
    if isinstance(block, Picture):
        data = base64.b64encode(pictures[f"{block.name}.svg"]).decode()
        picture = Markup('<p><img alt="{}" src="data:image/svg+xml;base64,{}"></p>')
        return picture.format(printable(block.text), data)
    return _html_table(block.rows)


def _html_table(rows: Sequence[Mapping[str, object]]) -> Markup:
    """Return a table without the columns that are empty in every row, as in Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [n for n in names if any(row.get(n) not in (None, "") for row in rows)]

    def line(tag: str, cells: Sequence[object]) -> Markup:
        texts = (printable("" if cell is None else str(cell)) for cell in cells)
        name = Markup(tag)  # noqa: S704 (th or td)
        inner = Markup("").join(Markup("<{0}>{1}</{0}>").format(name, t) for t in texts)
        return Markup("<tr>{}</tr>").format(inner)

    head = line("th", names)
    return Markup("<table>\n{}\n</table>").format(
        Markup("\n").join([head, *(line("td", [row.get(n) for n in names]) for row in rows)])
    )
