"""The options of a pair and of labels, as options of a command and as keys of a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from drsow_plugin.annotate.options import Kind, Relabel, Select
from drsow_plugin.config.model import SIDE_OPTIONS
from drsow_plugin.records import SIDES, DomainParts

F = TypeVar("F", bound=Callable[..., Any])

SIDE_HELP = {
    "revision": "Branch, tag or commit of a Hub model.",
    "dtype": "float32, bfloat16, float16, float64 or auto. [float32 on a CPU, else auto]",
    "device": "Such as cuda:1. [the first GPU, or the CPU]",
    "device_map": "An accelerate device map, such as auto, instead of a device.",
    "attn_implementation": "As in transformers, such as sdpa or flash_attention_2.",
    "quantization": "A JSON file with a transformers quantisation config.",
    "adapter": "A PEFT adapter on top of the weights: Hub id or folder.",
    "adapter_revision": "Branch, tag or commit of the adapter.",
    "template": "tokenizer (its own chat template, the default), none (a plain language model) "
    "or a Jinja file.",
    "template_args": 'Variables of the template: JSON such as {"enable_thinking": false}, or a '
    "file with it.",
    "template_date": "What templates that ask for the date are told: YYYY-MM-DD or today. "
    "[2024-07-26]",
    "tokenizer": "Hub id or folder, where the tokenizer is not with the weights.",
    "trust_remote_code": "true lets code from the model's repository run. [false]",
}
PAIR_HELP = {
    "reduction": "sum, or mean: each side divided by its own token count. [sum]",
    "end_of_turn": "Whether the template's end of turn is scored too: true or false. [true]",
    "overflow": "Rows over max-length: error, skip or truncate_prompt (from the left). [error; "
    "the row then has no reward and a status, unless --on-error raise]",
    "max_length": "Most tokens of prompt and response. [each model's own limit]",
    "refine": "Score again in float32 what lies within so many nats. [0: never]",
    "control_tokens": "Control tokens in prompts and responses: text, parse or error. [text]",
    "batch_tokens": "Most tokens at once. [fits the free memory]",
    "batch_size": "Most rows in a batch. [no limit]",
}
ROUTER_HELP = {
    "router": "Sends each prompt to a domain: keyword, model, column or a plugin's. [none]",
    "plugin": "A module or a Python file with domains and routers of yours; a+b for several.",
    "domain_column": "Where the data says a prompt's domain: router column goes by it, others are "
    "compared with it. [domain, for router column]",
    "router_model": "The model that router model asks: strong, weak or another. [strong]",
    "router_confidence": "Least probability of a choice of router model; else it is chat. [0.4]",
}
DOMAIN_HELP = {
    "domains": "The domains that are applied, such as safety+reasoning; a single one without a "
    "router is applied to every prompt. [all that are loaded]",
    "domain_parts": f"{', '.join(get_args(DomainParts))}, of every domain. [each domain's own]",
    "domain_side": "both models read the domain's parts, or the strong one. [each domain's own]",
    "domain_shots": "Most examples that a prompt gets. [each domain's own]",
}
LABEL_HELP = {
    "kind": f"What the data is: {', '.join(get_args(Kind))}. [seen from the columns]",
    "prompt_column": "[prompt or instruction; for pairs it may be missing]",
    "chosen_column": "[chosen]",
    "rejected_column": "[rejected]",
    "responses_column": "A list of candidates. [responses, completions or generations]",
    "response_column": "A single response, or a conversation that ends with it. [response, "
    "completion, output, messages or conversations]",
    "label_column": "Which of a pair's two responses is the better one, by its column's name or "
    "its last letter or number. [label, winner or preference, beside response_a and response_b]",
    "ratings_column": "Numbers for the candidates, to compare with. [ratings]",
    "group_column": "The summary is also given for each value of this column.",
    "select": f"How candidates make a pair: {', '.join(get_args(Select))}. [best_vs_random]",
    "min_margin": "Least margin of a pair, in nats; others are left out. [0]",
    "seed": "For best_vs_random. [0]",
    "relabel": f"For pairs: {', '.join(get_args(Relabel))} (where the margin is negative). [keep]",
    "messages": "Whether prompt, chosen and rejected are written as messages: true or false. "
    "[true for candidates and where a pair's columns are of two shapes]",
    "token_logprobs": "true writes the log-prob of each token too. [false]",
    "on_error": "null gives rows that cannot be scored no reward and a status; raise stops. [null]",
    "prefix": "What the names of added columns begin with. [drsow_]",
    "keep_names": "true keeps the names of a pair's columns; else they become prompt, chosen and "
    "rejected. [false]",
}

# Options are spelled as in lm_eval's --model_args, with dashes or underscores.
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "max_content_width": 100,
}


def pair_options(command: F) -> F:
    """Add the options of a pair of models to a command."""
    for name, text in reversed(PAIR_HELP.items()):
        command = _option(name, text)(command)
    for name, text in reversed(SIDE_HELP.items()):
        for side in reversed(SIDES):
            command = _option(f"{side}_{name}", text, hidden=True)(command)
        command = _option(name, text)(command)
    command = routing_options(command)
    for side, text in (("weak", "The less-aligned model."), ("strong", _STRONG)):
        command = _option(side, text, metavar="MODEL")(command)
    return command


def routing_options(command: F) -> F:
    """Add the options of routing to a command."""
    command = router_options(command)
    for name, text in reversed(DOMAIN_HELP.items()):
        command = _option(name, text)(command)
    return command


def router_options(command: F) -> F:
    """Add the options of a router to a command."""
    for name, text in reversed(ROUTER_HELP.items()):
        command = _option(name, text)(command)
    for name, text in reversed(SIDE_HELP.items()):
        command = _option(f"router_{name}", text, hidden=True)(command)
    return command


_STRONG = "The better-aligned model: a Hub id, a folder, a .gguf file or demo."
assert set(SIDE_HELP) == set(SIDE_OPTIONS)


def label_options(command: F) -> F:
    """Add the options of labelling to a command."""
    for name, text in reversed(LABEL_HELP.items()):
        command = _option(name, text)(command)
    return command


def config_options(command: F) -> F:
    """Add the options that read others from a file."""
    command = click.option("--allow-code", is_flag=True, default=None, help=_ALLOW_CODE)(command)
    return click.option("--config", metavar="FILE", help=_CONFIG)(command)


_CONFIG = "YAML or JSON file of these options."
_ALLOW_CODE = "Let the file of --config run code: a plugin, or code from a model's repository."


def _option(name: str, text: str, **more: Any) -> Callable[[F], F]:
    return click.option(f"--{name.replace('_', '-')}", name, help=text, **more)


EPILOG = (
    "Options are those of lm_eval's --model_args, with dashes or underscores; with --strong- "
    "or --weak- before it an option of a model is for one side: --weak-template none. Options of "
    "another router model begin with --router-. What stands in brackets is the default."
)
