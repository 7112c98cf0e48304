"""Writes the study of ten models into a page, from log-probs that ``drsow study`` has kept.

    python examples/study/write_page.py docs/study.md

in the folder of ten_models.yaml's files and models, after drsow study --config on it. LLMBar and
hh-rlhf are reported on apart. What is between the two marks of the page is written anew, and the
pictures, into a folder of the page's name beside it.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from drsow_plugin import Study
from drsow_plugin.data.loading import load_data
from drsow_plugin.progress import tell
from drsow_plugin.publishing.markdown import table
from drsow_plugin.study.gaps import pearson
from drsow_plugin.study.plots import HEAT_MAP, scatter_names
from drsow_plugin.study.report import StudyReport
from drsow_plugin.study.text import chosen, correlation, over, percent

BEGIN, END = "<!-- ten models: begin -->", "<!-- ten models: end -->"
PARTS = {"LLMBar": "llmbar", "hh-rlhf": "hh-rlhf"}
PAIRS = 8


def main() -> None:
    """Report on each part, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "ten_models.yaml")
    options = parser.parse_args()
    before, begin, rest = options.page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        parser.error(f"{options.page} has no {BEGIN} and {END} to write between")
    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    others = {n: v for n, v in config.items() if n not in ("input", "output", "models")}
    study = Study(config["models"], **others)
    by_token = Study(config["models"], **{**others, "reduction": "mean"})
    reports, means = {}, {}
    pictures = options.page.with_suffix("")
    pictures.mkdir(exist_ok=True)
    for name, file in PARTS.items():
        data = study.read(load_data([f"{file}.jsonl"]), name=name)
        report = reports[name] = study.run_on(data)
        means[name] = by_token.run_on(data)
        folder = Path(f"{config['output']}-{file}")
        report.save(folder)
        for picture in (HEAT_MAP, *scatter_names(report)):
            (pictures / f"{file}-{picture}.png").write_bytes(
                (folder / f"{picture}.png").read_bytes()
            )
    body = "\n\n".join(written(reports, means, pictures.name, runs(config["models"])))
    options.page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")
    tell(f"{options.page}: written")


def runs(models: Mapping[str, Mapping[str, Any]]) -> list[dict[str, object]]:
    """Return what training did to log-probs, as make_models.py has noted it."""
    folder = next(Path(m["adapter"]).parent for m in models.values() if "adapter" in m)
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        return [
            {
                "run": line["run"],
                "step": line["step"],
                "chosen": f"{float(line['chosen']):.2f}",
                "rejected": f"{float(line['rejected']):.2f}",
                "disordered": f"{float(line['disordered']):.2f}",
                "chosen - rejected, a pair": f"{float(line['margin']):+.1f}",
            }
            for line in csv.DictReader(file)
        ]


def written(
    reports: Mapping[str, StudyReport],
    means: Mapping[str, StudyReport],
    folder: str,
    lines: list[dict[str, object]],
) -> Iterator[str]:
    """Yield the paragraphs and tables of the page."""
    first = next(iter(reports.values()))
    rows = " and ".join(
        f"{r.rows:,} of {r.of_rows:,} rows of {name} "
        f"({', '.join(f'{subset} {count}' for subset, count in r.subsets.items())})"
        for name, r in reports.items()
    )
    yield (
        f"{first.date}, drsow-plugin {first.version}: {len(first.models)} models, "
        f"{len(first.pairs)} ordered pairs, on {rows}. Brackets hold 95 % intervals."
    )
    yield "What training did: log-probs in nats a token, on pairs that no run was trained on."
    yield str(table(lines))
    yield "The models, each alone:"
    yield str(table(models(reports)))
    for name, report in reports.items():
        yield f"### {name}"
        yield chosen(report)
        yield str(table(pairs(report)))
        yield f"![Accuracy of every ordered pair on {name}]({folder}/{PARTS[name]}-{HEAT_MAP}.png)"
    yield "### Does the gap predict the accuracy?"
    yield (
        "Gaps are taken from half of the prompts, and held against accuracies on the other half; "
        "upward pairs are those whose strong model has the higher score. The reward is a sum over "
        "tokens, or where it says so their mean (`reduction=mean`)."
    )
    by_token = {f"{name}, mean over tokens": report for name, report in means.items()}
    yield str(table(laws({**reports, **by_token})))
    yield (
        "How far this is a matter of length: over all pairs, Pearson's correlation with how often "
        "a pair prefers the longer response."
    )
    yield str(table(of_length({**reports, **by_token})))
    for name, report in reports.items():
        for picture, law in scatter_names(report).items():
            text = f"Accuracy on {name} against the gap in {law.score}"
            yield f"![{text}]({folder}/{PARTS[name]}-{picture}.png)"


def models(reports: Mapping[str, StudyReport]) -> Iterator[dict[str, object]]:
    """Yield the models' likelihoods on each part, and the baseline of length."""
    for number, model in enumerate(next(iter(reports.values())).models):
        line: dict[str, object] = {"model": model.name}
        for name, report in reports.items():
            same = report.models[number]
            line[f"likelihood, {name} (%)"] = percent(same.likelihood)
            line[f"nats a byte, {name}"] = f"{same.loglikelihood:.3f}"
        yield line
    yield {
        "model": "(the longer response)",
        **{f"likelihood, {name} (%)": percent(report.length) for name, report in reports.items()},
    }


def pairs(report: StudyReport) -> Iterator[dict[str, object]]:
    """Yield the best pairs, with their accuracy on each subset."""
    for pair in report.ranked()[:PAIRS]:
        yield {
            "pair": over(pair),
            "accuracy (%)": percent(pair.accuracy),
            "longer preferred (%)": "" if pair.longer is None else f"{100 * pair.longer:.0f}",
            **{name: percent(estimate) for name, estimate in pair.subsets.items()},
        }


def of_length(reports: Mapping[str, StudyReport]) -> Iterator[dict[str, object]]:
    """Yield how preference of the longer response goes with gap and accuracy."""
    for name, report in reports.items():
        names = [model.name for model in report.models]
        longer = np.array([pair.longer for pair in report.pairs], dtype=float)
        of = {f"gap in {law.score}": law.gaps for law in report.laws}
        places = [(names.index(pair.strong), names.index(pair.weak)) for pair in report.pairs]
        columns = {
            "accuracy": np.array([pair.accuracy.value for pair in report.pairs]),
            **{title: np.array([gaps[at] for at in places]) for title, gaps in of.items()},
        }
        found = {title: pearson(longer, values) for title, values in columns.items()}
        cells = {title: "" if r is None else f"{r:+.2f}" for title, r in found.items()}
        yield {"rows": name, "longer is the better one (%)": percent(report.length), **cells}


def laws(reports: Mapping[str, StudyReport]) -> Iterator[dict[str, object]]:
    """Yield each gap held against the accuracies of each part."""
    for name, report in reports.items():
        for law in report.laws:
            yield {
                "rows": name,
                "gap in": law.score,
                "Pearson": correlation(law.pearson),
                "Spearman": correlation(law.spearman),
                "Pearson, upward": correlation(law.pearson_upward),
                "Spearman, upward": correlation(law.spearman_upward),
                "upward pairs above 50 %": ""
                if law.agreeing is None
                else f"{100 * law.agreeing:.0f} %",
            }


if __name__ == "__main__":
    main()
