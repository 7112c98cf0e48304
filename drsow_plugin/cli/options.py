"""The options of a pair and of labels, as options of a command and as keys of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import click

from drsow_plugin.annotate.options import LABEL_OPTIONS
from drsow_plugin.config.model import SIDE_OPTIONS
from drsow_plugin.config.options import options_of
from drsow_plugin.config.pair import PREFIXES, PairConfig
from drsow_plugin.config.routing import DOMAIN_OPTIONS, RoutingConfig
from drsow_plugin.option import Option
from drsow_plugin.records import SIDES, Scoring

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
