"""Writes what follows from the code: docs/options.md, types for keywords, the table of pairs.

python scripts/write_options.py            # writes all
python scripts/write_options.py --check    # exit status 1 where one of them would change
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from drsow_plugin.annotate.options import KIND_WORDS, LabelConfig
from drsow_plugin.config.model import ModelConfig
from drsow_plugin.config.options import options_of
from drsow_plugin.config.pair import OF_ONE_MODEL, PREFIXES, PairConfig
from drsow_plugin.config.reward_model import RewardModelConfig
from drsow_plugin.config.routing import RoutingConfig
from drsow_plugin.config.sampling import SAMPLING_OPTIONS
from drsow_plugin.generation.options import GENERATE_OPTIONS
from drsow_plugin.option import Option
from drsow_plugin.quality.options import CHECK_OPTIONS, COMPARE_OPTIONS, ROWS_OPTIONS
from drsow_plugin.records import SIDES, Scoring
from drsow_plugin.report.options import PAGE_OPTIONS
from drsow_plugin.serving.options import SERVE_OPTIONS
from drsow_plugin.study.known import known_pairs, markdown_table
from drsow_plugin.study.options import COLUMNS, STUDY_OPTIONS
from drsow_plugin.tuning.online_options import ONLINE_OPTIONS
from drsow_plugin.tuning.options import TUNE_OPTIONS

ROOT = Path(__file__).parents[1]
PAIR = options_of(PairConfig).values()
GROUPS: dict[str, list[Option]] = {
    "models": [option for option in PAIR if option.name in SIDES],
    "model": list(options_of(ModelConfig).values()),
    "scoring": [
        *options_of(Scoring).values(),
        *(option for option in PAIR if option.name not in SIDES),
    ],
    "routing": list(options_of(RoutingConfig).values()),
    "labels": list(options_of(LabelConfig).values()),
    "serving": list(SERVE_OPTIONS.values()),
    "study": list(STUDY_OPTIONS.values()),
    "reward": list(options_of(RewardModelConfig).values()),
    "report": list(PAGE_OPTIONS.values()),
    "tuning": list(TUNE_OPTIONS.values()),
    "online": list(ONLINE_OPTIONS.values()),
    "generation": [*SAMPLING_OPTIONS.values(), *GENERATE_OPTIONS.values()],
    "rows": list(ROWS_OPTIONS.values()),
    "check": list(CHECK_OPTIONS.values()),
    "compare": list(COMPARE_OPTIONS.values()),
}
PAGE = """\
# Options

They are spelled the same everywhere: as keywords of `DrSoW`, `Annotator` and `DrSoWLM`, in
lm-eval's `--model_args`, in a file for `--config`, and, with dashes or underscores, as `--options`
of `drsow annotate` and `drsow score`. A mistaken name or value is refused before a model is loaded.
This page is written by `scripts/write_options.py` from the code.

## The pair

{models}

## Each model

With `strong_` or `weak_` before it an option is for one side, without it for both. With `router_`
it is for the model that `router_model` names, which takes `dtype`, `device`, `device_map`,
`attn_implementation` and `compile` from those for both.

{model}

## Scoring and batches

{scoring}

## Domains and routers

See [domains.md](domains.md) and [plugins.md](plugins.md).

{routing}

## Labels

Of `Annotator` and `drsow annotate`; nothing here changes a reward.

{labels}

## Studies

Of `Study` and `drsow study`, beside those of each model, of scoring and batches but for `refine`,
and of labels those that name the columns of a pair; see [study.md](study.md).

{study}

## A trained reward model

Of `RewardModel` and `--model reward`, beside `pretrained`, which names it, and of those of each
model `revision`, `dtype`, `device`, `device_map`, `attn_implementation`, `quantization`, `template`
(a file), `template_args`, `template_date`, `tokenizer`, `trust_remote_code` and
`allow_pickle`.

{reward}

## Candidates

Of `generate` and `drsow generate`, beside those of the policy, without a prefix, and `batch_size`;
see [generating.md](generating.md).

{generation}

## Quality

Of `drsow check`, `drsow compare` and `drsow quality`, beside those of labels that say where things
are (`prefix`, and the names of columns but `label_column`); see [quality.md](quality.md).

{rows}

Of `drsow check`:

{check}

Of `drsow compare`:

{compare}

## Reports

Of `drsow report`, beside those of the pair with `tokens=true`, and of labels those that say where
things are; see [report.md](report.md).

{report}

## Tuning

Of `drsow tune`, beside `policy` and, of the options of each model, `revision`, `dtype`, `device`,
`template`, `tokenizer`, `trust_remote_code` and `allow_pickle`; see [tuning.md](tuning.md).

{tuning}

Of `drsow grpo`, beside `policy`, those of the pair, and, with `policy_` before them, the same
options of a model:

{online}

## Serving

Of `drsow serve`; see [trainers.md](trainers.md). But for `prompts`, nothing here changes a reward.

{serving}
"""
KEYWORDS = '''\
"""The options as keyword arguments, for editors and type checkers.

Written by scripts/write_options.py from where they are declared; not by hand.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from drsow_plugin.config.in_memory import ModelObject


class ModelOptions(TypedDict, total=False):
    """The options of :class:`~drsow_plugin.LanguageModel`, but for the model."""

{model}


class PairOptions(ModelOptions, total=False):
    """The options of :class:`~drsow_plugin.DrSoW`, but for the two models."""

{pair}


class StudyOptions(ModelOptions, total=False):
    """The options of :class:`~drsow_plugin.Study`, but for the models."""

{study}


class AnnotatorOptions(PairOptions, total=False):
    """The options of :class:`~drsow_plugin.Annotator`: those of the pair and of the labels."""

{labels}
'''


def page() -> str:
    """Return the reference of all options, in Markdown."""
    return PAGE.format(**{name: "\n".join(table(group)) for name, group in GROUPS.items()})


def table(options: Iterable[Option]) -> Iterator[str]:
    """Return the lines of a table with one option a row."""
    yield "| option | values | default | what it does |"
    yield "| --- | --- | --- | --- |"
    for option in options:
        kinds = " and ".join(KIND_WORDS[kind] for kind in option.kinds)
        kinds = f"For {kinds}." if kinds else ""
        told = " ".join(filter(None, [option.help, option.more, kinds]))
        is_word = isinstance(option.default, (str, bool)) and " " not in option.unset
        default = f"`{option.unset}`" if is_word else option.unset
        cells = (f"`{option.name}`", option.values.words, default, told)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def keywords() -> str:
    """Return the module of typed dictionaries."""
    options = {option.name: option for option in (*GROUPS["scoring"], *GROUPS["routing"])}
    options |= {f"{prefix}{o.name}": o for prefix in PREFIXES for o in GROUPS["model"]}
    groups = {
        "model": {name: option for name, option in options.items() if name in OF_ONE_MODEL},
        "pair": {name: option for name, option in options.items() if name not in OF_ONE_MODEL},
        "labels": {option.name: option for option in GROUPS["labels"]},
        "study": {
            **{option.name: option for option in GROUPS["study"]},
            **{option.name: option for option in GROUPS["labels"] if option.name in COLUMNS},
            "reduction": options["reduction"],
        },
    }
    lines = {key: [typed(n, o) for n, o in group.items()] for key, group in groups.items()}
    return KEYWORDS.format(**{key: "\n".join(group) for key, group in lines.items()})


def typed(name: str, option: Option) -> str:
    """Return the line of one keyword."""
    python = option.values.python
    may_be_none = option.default in (None, ()) and python != "object"
    return f"    {name}: {python}{' | None' if may_be_none else ''}".replace("'", '"')


def with_pairs(text: str) -> str:
    """Return the page on models with the pairs that the package knows."""
    begin, end = "<!-- pairs: written by scripts/write_options.py -->\n", "<!-- end -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{markdown_table(known_pairs())}\n\n{end}{rest.partition(end)[2]}"


def main() -> int:
    """Write the files, or with --check say which would change."""
    stale = 0
    models = ROOT / "docs/models.md"
    for place, text in (
        (ROOT / "docs/options.md", page()),
        (ROOT / "drsow_plugin/config/keywords.py", keywords()),
        (models, with_pairs(models.read_text(encoding="utf-8"))),
    ):
        if place.is_file() and place.read_text(encoding="utf-8") == text:
            continue
        stale = 1
        print(place.relative_to(ROOT))
        if "--check" not in sys.argv:
            place.write_text(text, encoding="utf-8")
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
