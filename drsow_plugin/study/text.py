"""What a study says, in words: the figures of its pages, and a few lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from drsow_plugin.bootstrap import Estimate
from drsow_plugin.printable import printable
from drsow_plugin.study.choice import Choice
from drsow_plugin.study.findings import Findings, PairResult
from drsow_plugin.study.gaps import GapLaw

_SHOWN = 5


def percent(estimate: Estimate) -> str:
    """Return a share with its interval, such as ``62.0 [58.1, 65.9]``, in percent."""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.1f}"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def correlation(estimate: Estimate | None) -> str:
    """Return a correlation with its interval, where there is one."""
    if estimate is None:
        return "not defined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.2f}"
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"


def size(value: int | None) -> str:
    """Return a number of bytes; empty where it is not known."""
    return "" if value is None else f"{value / 1e9:.2f} GB"


def spelled(options: Mapping[str, object]) -> str:
    """Return a model with its options, as a command line has them."""
    rest = {name: value for name, value in options.items() if name != "source"}
    return ",".join([str(options["source"]), *(f"{name}={value}" for name, value in rest.items())])


def over(pair: PairResult) -> str:
    """Return what a pair is called."""
    return f"{pair.strong} over {pair.weak}"


def chosen(report: Findings) -> str:
    """Return which pair is the best, how sure that is, and what to expect of it."""
    choice = report.choice
    if choice is None:
        return (
            f"No pair is within the limits of memory and cost ({report.unknown} pairs are of "
            "unknown memory or cost)."
        )
    baseline = max([report.length.value, *(m.likelihood.value for m in report.models)])
    text = (
        f"The best of {choice.candidates} ordered pairs is {choice.strong} over {choice.weak}: "
        f"{percent(choice.accuracy)} % on these rows. {_on_new_rows(choice)}It is the best pair in "
        f"{100 * choice.share:.0f} % of the resamples. The best baseline (likelihood of one model, "
        f"or the longer response) has {100 * baseline:.1f} %."
    )
    unknown = f" {report.unknown} pairs of unknown memory or cost were no candidates."
    return text + (unknown if report.unknown else "")


def _on_new_rows(choice: Choice) -> str:
    if choice.expected is None or choice.fall is None:
        return ""
    return (
        f"A winner is partly luck: on new rows {100 * choice.expected:.1f} % is to be expected of "
        "a pair that is chosen so (by cross-validation), "
        f"{max(100 * choice.fall, 0):.1f} points less. "
    )


def law(found: GapLaw) -> str:
    """Return in one line what a gap says of accuracy."""
    agreeing = "" if found.agreeing is None else f", right way round {100 * found.agreeing:.0f} %"
    return (
        f"{found.score}: Pearson {correlation(found.pearson)}, Spearman "
        f"{correlation(found.spearman)}; upward pairs alone Pearson "
        f"{correlation(found.pearson_upward)}{agreeing}"
    )


def summary(report: Findings) -> str:
    """Return the lines that a terminal shows."""
    return printable("\n".join(_lines(report)), lines=True)


def _lines(report: Findings) -> Iterator[str]:
    passes = sum(model.scored > 0 for model in report.models)
    yield (
        f"{report.data}: {report.rows:,} of {report.of_rows:,} rows, {len(report.models)} models "
        f"({passes} scored now), {len(report.pairs)} ordered pairs"
    )
    for reason, count in report.left_out.items():
        yield f"  left out: {count:,} rows, {reason}"
    for name, reason in report.failed.items():
        yield f"  missing: {name}: {reason}"
    yield f"  longer response {percent(report.length)} %"
    for model in report.models:
        yield f"  likelihood of {model.name} {percent(model.likelihood)} %"
    for pair in report.ranked()[:_SHOWN]:
        yield f"  {over(pair)} {percent(pair.accuracy)} %"
    for found in report.laws:
        yield f"  gap in {law(found)}"
    yield chosen(report)
