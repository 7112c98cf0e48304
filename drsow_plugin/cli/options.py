"""The options of a pair and of labels, as options of a command and as keys of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import click

from drsow_plugin.annotate.options import LABEL_OPTIONS
from drsow_plugin.config.model import SIDE_OPTIONS
from drsow_plugin.config.options import options_of
from drsow_plugin.config.pair import PREFIXES, PairConfig
from drsow_plugin.config.reward_model import NAMES as JUDGE
from drsow_plugin.config.routing import DOMAIN_OPTIONS, RoutingConfig
from drsow_plugin.config.sampling import SAMPLING_OPTIONS
from drsow_plugin.generation.options import GENERATE_OPTIONS
from drsow_plugin.option import Option
from drsow_plugin.pipeline.evaluation import MODELS
from drsow_plugin.quality.options import CHECK_OPTIONS, COMPARE_OPTIONS, READ, ROWS_OPTIONS
from drsow_plugin.records import SIDES, Scoring
from drsow_plugin.report.options import PAGE_OPTIONS
from drsow_plugin.serving.options import SERVE_OPTIONS
from drsow_plugin.study.options import COLUMNS, STUDY_OPTIONS
from drsow_plugin.tuning.online_options import ONLINE_OPTIONS
from drsow_plugin.tuning.options import MODEL as OF_POLICY
from drsow_plugin.tuning.options import TUNE_OPTIONS

F = TypeVar("F", bound=Callable[..., Any])

# Options are spelled as in lm_eval's --model_args, with dashes or underscores.
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "max_content_width": 100,
}


def pair_options(command: F) -> F:
    """Add the options of a pair of models to a command."""
    pair = options_of(PairConfig)
    groups = [
        *(_declared(pair[side], metavar="MODEL") for side in SIDES),
        *map(_declared, options_of(RoutingConfig).values()),
        *_of_models(PREFIXES),
        *map(_declared, options_of(Scoring).values()),
        *(_declared(option) for name, option in pair.items() if name not in SIDES),
    ]
    return _add(groups, command)


def router_options(command: F) -> F:
    """Add the options of a router to a command: all of routing but what is applied of a domain."""
    options = options_of(RoutingConfig).items()
    router = [_declared(option) for name, option in options if name not in DOMAIN_OPTIONS]
    return _add([*router, *_of_models(["router_"])], command)


def label_options(command: F) -> F:
    """Add the options of labelling to a command."""
    return _add(map(_declared, LABEL_OPTIONS.values()), command)


def serve_options(command: F) -> F:
    """Add the options of a server to a command."""
    return _add(map(_declared, SERVE_OPTIONS.values()), command)


def generate_options(command: F) -> F:
    """Add the options of generation to a command."""
    groups = [
        click.option("--policy", metavar="MODEL", help="The model to sample from."),
        *map(_declared, SAMPLING_OPTIONS.values()),
        *map(_declared, GENERATE_OPTIONS.values()),
        *_of_models([""]),
        click.option("--batch-size", help="Responses that are generated together. [16]"),
    ]
    return _add(groups, command)


def tune_options(command: F) -> F:
    """Add the options of tuning to a command."""
    groups = [
        click.option("--policy", metavar="MODEL", help="The model to tune."),
        *map(_declared, TUNE_OPTIONS.values()),
        *(_declared(SIDE_OPTIONS[name]) for name in OF_POLICY),
    ]
    return _add(groups, command)


def grpo_options(command: F) -> F:
    """Add the options of online training to a command, but for those of the pair."""
    groups = [
        click.option("--policy", metavar="MODEL", help="The model to train."),
        *map(_declared, ONLINE_OPTIONS.values()),
        *(_declared(SIDE_OPTIONS[name], "policy_", hidden=True) for name in OF_POLICY),
    ]
    return _add(groups, command)


def evaluate_options(command: F) -> F:
    """Add the options of an evaluation to a command: of a policy, its start, a judge and a pair."""
    groups = [
        click.option("--policy", metavar="MODEL", help="The policy that answered."),
        click.option("--start", metavar="MODEL", help="The model that it began as."),
        click.option("--judge", metavar="MODEL", help="A trained reward model."),
        click.option("--prompt-column", help="The column with the prompts. [prompt]"),
        *(
            _declared(option, f"{model}_", hidden=True)
            for model in MODELS
            for option in SIDE_OPTIONS.values()
        ),
        *(click.option(f"--judge-{name.replace('_', '-')}", hidden=True) for name in sorted(JUDGE)),
    ]
    return _add(groups, pair_options(command))


def study_options(command: F) -> F:
    """Add the options of a study to a command, and those of all of its models."""
    pair, labels = options_of(PairConfig), LABEL_OPTIONS
    groups = [
        *map(_declared, STUDY_OPTIONS.values()),
        *(_declared(labels[name]) for name in COLUMNS),
        *_of_models([""]),
        *(_declared(option) for name, option in options_of(Scoring).items() if name != "refine"),
        *(_declared(pair[name]) for name in ("batch_tokens", "batch_size")),
    ]
    return _add(groups, command)


def quality_options(command: F) -> F:
    """Add the options of how labelled rows are read to a command."""
    return _add(map(_declared, [*ROWS_OPTIONS.values(), *READ.values()]), command)


def check_options(command: F) -> F:
    """Add the bounds of labelled rows to a command."""
    return _add(map(_declared, CHECK_OPTIONS.values()), command)


def compare_options(command: F) -> F:
    """Add the options of a comparison to a command."""
    return _add(map(_declared, COMPARE_OPTIONS.values()), command)


def page_options(command: F) -> F:
    """Add the options of a page to a command, and of labels those that say where things are."""
    return _add(map(_declared, [*PAGE_OPTIONS.values(), *READ.values()]), command)


def _of_models(prefixes: Iterable[str]) -> Iterator[Callable[[F], F]]:
    """Return the options of models; those of one model are not in the help."""
    for option in SIDE_OPTIONS.values():
        for prefix in prefixes:
            yield _declared(option, prefix, hidden=prefix != "")


def _declared(option: Option, prefix: str = "", **more: Any) -> Callable[[F], F]:
    """Return an option of a command that is declared as one of a configuration."""
    name = f"{prefix}{option.name}"
    unset = f" [{option.unset}]" if option.unset else ""
    text = option.help.replace("`", "") + unset
    return click.option(f"--{name.replace('_', '-')}", name, help=text, **more)


def _add(options: Iterable[Callable[[F], F]], command: F) -> F:
    for option in reversed(list(options)):
        command = option(command)
    return command


def config_options(command: F) -> F:
    """Add the options that read others from a file."""
    command = click.option("--allow-code", is_flag=True, default=None, help=_ALLOW_CODE)(command)
    return click.option("--config", metavar="FILE", help=_CONFIG)(command)


_CONFIG = "YAML or JSON file of these options."
_ALLOW_CODE = "Let the file of --config run code: a plugin, or code from a model's repository."


EPILOG = (
    "Options are those of lm_eval's --model_args, with dashes or underscores; with --strong- "
    "or --weak- before it an option of a model is for one side: --weak-template none. Options of "
    "another router model begin with --router-. What stands in brackets is the default."
)
