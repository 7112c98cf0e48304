"""One model: where it comes from and how it is loaded, as frozen and checked configuration."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from drsow_plugin.config.in_memory import (
    Given,
    checked_model,
    checked_tokenizer,
    is_engine,
    is_object,
    name_of,
)
from drsow_plugin.config.options import options_of, parse_options
from drsow_plugin.config.parse import (
    DTYPES,
    parse_date,
    parse_device_map,
    parse_dtype,
    parse_path,
    parse_quantization,
    parse_seconds,
    parse_template_args,
    parse_text,
    parse_urls,
)
from drsow_plugin.errors import ConfigError
from drsow_plugin.option import Values, documented, option
from drsow_plugin.records import DEFAULT_DATE

_JSON = "JSON, or a file with it"
_PYTHON = "str | Mapping[str, Any]"


@documented
@dataclass(frozen=True)
class ModelConfig:
    """One model.

    Attributes:
        source: A Hub id, a local folder, a ``.gguf`` file or the name ``demo``.
        given: The model, engine or tokenizer, where it was given as an object; ``source`` or
            ``tokenizer`` only stands for it then.
    """

    source: str
    revision: str | None = option(None, "Branch, tag or commit of a Hub model.")
    dtype: str | None = option(
        None,
        "`float32`, `bfloat16`, `float16`, `float64`, or `auto` for the checkpoint's own.",
        unset="float32 on a CPU, else auto",
        values=Values(parse_dtype, ", ".join(f"`{name}`" for name in DTYPES), "object"),
    )
    device: str | None = option(
        None,
        "Where the weights go, such as `cuda:1`.",
        unset="the first GPU, or the CPU",
        values=Values(lambda _name, value: str(value), "text", "str"),
    )
    device_map: str | None = option(
        None,
        "An accelerate device map, such as `auto`, instead of a device.",
        values=Values(parse_device_map, "text, or JSON", _PYTHON),
    )
    attn_implementation: str | None = option(
        None,
        "As in transformers, such as `sdpa` or `flash_attention_2`.",
        "Rows are then scored one by one with it, and share no prefixes.",
    )
    compile: Literal["auto", "on", "off"] = option(
        "auto",
        "Whether decoder layers are compiled by `torch.compile`: `on`, `off` or `auto`.",
        "`auto` is on a GPU, once a model has read so much that compiling pays. Log-probs then "
        "differ by rounding. Layers with an adapter, hooks or quantized weights never are.",
    )
    quantization: str | None = option(
        None,
        "A transformers quantization config, such as "
        '`{"quant_method": "bitsandbytes", "load_in_4bit": true}`.',
        values=Values(parse_quantization, _JSON, _PYTHON),
    )
    adapter: str | None = option(
        None,
        "A PEFT adapter on top of the weights: Hub id or folder.",
        values=Values(parse_path, "Hub id or folder", "str"),
    )
    adapter_revision: str | None = option(None, "Branch, tag or commit of the adapter.")
    template: str = option(
        "tokenizer",
        "`tokenizer` (its own chat template), `none` (no chat template), `rendered` (prompts are "
        "rendered already) or a Jinja file.",
        "Rendered prompts and their responses are read as they stand: `control_tokens=parse` and "
        "`end_of_turn=false` go with that.",
        values=Values(parse_text, "`tokenizer`, `none`, `rendered` or a file", "str | None"),
    )
    template_args: str | None = option(
        None,
        'Variables of the template: JSON such as `{"enable_thinking": false}`, or a file with it.',
        values=Values(parse_template_args, _JSON, _PYTHON),
    )
    template_date: str | None = option(
        None,
        "What templates that ask for the date are told: `YYYY-MM-DD` or `today`.",
        unset=DEFAULT_DATE.isoformat(),
        values=Values(parse_date, "a date, or `today`", "str | datetime.date"),
    )
    tokenizer: str | None = option(
        None,
        "Hub id or folder of the tokenizer, where it is not with the weights.",
        "In Python also a tokenizer of transformers.",
        values=Values(parse_path, "Hub id or folder", "str | PreTrainedTokenizerBase"),
    )
    trust_remote_code: bool = option(False, "Whether code from the model's repository may run.")
    allow_pickle: bool = option(
        False,
        "Whether weights may be read from pickles, such as `pytorch_model.bin`, which may hold "
        "code.",
        "Safetensors and GGUF files hold numbers only.",
    )
    server: tuple[str, ...] = option(
        (),
        "URL of a server that computes the log-probs, such as `http://127.0.0.1:8000/v1`; "
        "`url+url` for several that serve the same.",
        "Tokenizer, template and length limit are still those of the model that is named; no "
        "weights are loaded here. See [serving.md](serving.md).",
        values=Values(parse_urls, "a URL, or `url+url`", "str | list[str]"),
    )
    server_model: str | None = option(
        None,
        "What the server calls the model.",
        unset="what it serves under the model's own name",
    )
    server_key: str | None = option(
        None,
        "Where the server's key is: name of an environment variable, or a file.",
        "The key itself is never an option.",
        values=Values(parse_path, "variable or file", "str"),
    )
    server_timeout: float = option(
        300.0,
        "Seconds for the answer to one request.",
        values=Values(parse_seconds, "seconds", "float"),
    )
    server_wait: float = option(
        600.0,
        "Seconds that a server is waited for that stops answering in the middle of the work.",
        values=Values(parse_seconds, "seconds", "float"),
    )
    given: Given = field(default_factory=Given, repr=False)

    def weights_only(self) -> ModelConfig:
        """Return what identifies the loaded weights: all but template, tokenizer, adapter."""
        other = {name: SIDE_OPTIONS[name].default for name in (*OF_TEXTS, *_OF_ADAPTER)}
        return replace(self, given=self.given.model_only(), **other)

    @property
    def computes_here(self) -> bool:
        """Whether weights are loaded in this process, so that torch and a device are needed."""
        return not self.server and self.given.engine is None


RENDERED = "rendered"
"""The template of prompts that a template has rendered already."""

SIDE_OPTIONS = options_of(ModelConfig)
OF_TEXTS = ("template", "template_args", "template_date", "tokenizer")
_OF_ADAPTER = ("adapter", "adapter_revision")
_OF_WEIGHTS = (
    *("dtype", "device", "device_map", "attn_implementation", "compile", "quantization"),
    *("allow_pickle", *_OF_ADAPTER),
)
_OF_SERVERS = ("server_model", "server_key", "server_timeout", "server_wait")


def parse_model(
    side: str, source: object, options: Mapping[str, Any], shared: Collection[str] | None = None
) -> ModelConfig:
    """Turn the options of one model into a checked configuration.

    Args:
        side: What its options begin with, such as ``strong``.
        source: The model.
        options: All options; those of this model are spelled ``SIDE_NAME``.
        shared: The options that, spelled without a prefix, hold for this model too; ``None``
            is all of them.

    Raises:
        ConfigError: The model is missing, or an option is wrong.
    """
    own = {name: options[f"{side}_{name}"] for name in SIDE_OPTIONS if f"{side}_{name}" in options}
    both = {n: options[n] for n in (SIDE_OPTIONS if shared is None else shared) if n in options}
    named = {**both, **own}
    if "template" in named and named["template"] is None:
        named["template"] = "none"  # lm-eval reads the word none as None
    named = {name: value for name, value in named.items() if value is not None}
    objects = _taken_out(side, source, named)
    if objects.has_model:
        source = name_of(source)
    if source is None or str(source) == "":
        raise ConfigError(
            f"No {side} model was given. Set {side}=… to a Hub id, a local folder, a .gguf "
            "file or 'demo'."
        )
    _check_server(side, named, own)
    given = parse_options(ModelConfig, named, prefix=f"{side}_")
    if "device_map" in given and "device" not in own:
        given.pop("device", None)  # a device for both sides gives way to a device map
    if "adapter_revision" in given and "adapter" not in given:
        raise ConfigError(f"{side}_adapter_revision has no effect without {side}_adapter.")
    if given.get("template") == "none" and "template_args" in given:
        if "template_args" in own:
            raise ConfigError(f"{side}_template_args has no effect with {side}_template=none.")
        del given["template_args"]
    if "device" in given and "device_map" in given:
        raise ConfigError(f"Give {side}_device or {side}_device_map, not both.")
    return ModelConfig(source=str(source), given=objects, **given)


def _check_server(side: str, named: dict[str, Any], own: Mapping[str, Any]) -> None:
    """Check that options of a server are for one, and others for weights; a device may be idle."""
    if not named.get("server"):
        for name in _OF_SERVERS:
            if own.get(name) is not None:
                raise ConfigError(f"{side}_{name} has no effect without {side}_server=….")
            named.pop(name, None)  # it is for the other side
        return
    if "device" not in own:
        named.pop("device", None)  # for both sides: lm-eval always gives one
    idle = [name for name in _OF_WEIGHTS if name in named]
    if idle:
        raise ConfigError(
            f"{side}_server: it computes with its own weights, so {', '.join(idle)} "
            "has no effect. Leave it out, or give it for the other model alone."
        )


def check_servers(options: Mapping[str, Any], models: Iterable[ModelConfig]) -> None:
    """Check that options of servers, which were given for all models, are for one that has one.

    Raises:
        ConfigError: No model has a server.
    """
    if not any(model.server for model in models):
        for name in _OF_SERVERS:
            if options.get(name) is not None:
                raise ConfigError(f"{name} has no effect without server=….")


def _taken_out(side: str, source: object, named: dict[str, Any]) -> Given:
    """Return the objects among a model's source and options, where names then stand for them."""
    objects = Given()
    if is_object(source):
        asked = "router_model" if side == "router" else side
        allowed = OF_TEXTS if is_engine(source) else (*OF_TEXTS, "compile")
        objects = checked_model(asked, side, source, named, allowed)
    if is_object(value := named.get("tokenizer")):
        objects = replace(objects, tokenizer=checked_tokenizer(f"{side}_tokenizer", value))
        named["tokenizer"] = name_of(value)
    return objects


def date_of(text: str | None) -> datetime.date:
    """Return the date that a configuration names."""
    if text == "today":
        return datetime.date.today()
    return datetime.date.fromisoformat(text) if text else DEFAULT_DATE
