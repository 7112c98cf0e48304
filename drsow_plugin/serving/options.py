"""How rewards are served, as frozen and checked configuration."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from drsow_plugin.cache import reason
from drsow_plugin.config.model import RENDERED
from drsow_plugin.config.options import choice, options_of, parse_options
from drsow_plugin.config.pair import PairConfig, parse_pair
from drsow_plugin.config.parse import parse_flag
from drsow_plugin.errors import ConfigError
from drsow_plugin.option import Values, documented, option
from drsow_plugin.serving.turns import FORMATS

KEY_VARIABLE = "DRSOW_API_KEY"
"""The environment variable with the key."""

Prompts = Literal["rendered", "messages"]
_MIN_KEY = 16


def _port(name: str, value: object) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) > 65535:
        raise ConfigError(f"{name} is a whole number from 0 to 65535, got {value!r}.")
    return int(text)


def _milliseconds(name: str, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 10_000:
        raise ConfigError(f"{name} is a number of milliseconds, 0 to 10000, got {value!r}.")
    return number


@documented
@dataclass(frozen=True)
class ServeConfig:
    """How rewards are served. But for ``prompts``, nothing here changes a reward."""

    host: str = option(
        "127.0.0.1", "The address to listen on.", "One that others can reach needs a key."
    )
    port: int = option(
        8080,
        "The port; 0 is any that is free.",
        values=Values(_port, "0 to 65535", "int"),
    )
    prompts: Prompts | None = option(
        None,
        "What a prompt that is a text is: `rendered` by the policy's template, and scored as it "
        "stands; or rendered and to be taken apart into `messages`.",
        unset="one user turn; trainers' prompts are refused",
    )
    prompts_template: str | None = option(
        None,
        "With `messages`, what rendered the prompts.",
        values=choice(FORMATS),
    )
    api_key_file: str | None = option(
        None,
        "A file with the key that requests have to bring.",
        unset=f"the environment variable {KEY_VARIABLE}, or no key",
    )
    batch_window: float = option(
        5.0,
        "Milliseconds that a request waits for others, to be scored together with them.",
        values=Values(_milliseconds, "milliseconds", "float"),
    )
    score_tokens: int = option(
        65_536,
        "Tokens, of both models and prompts included, above which requests that wait are scored "
        "one after the other.",
    )
    queue_rows: int = option(4096, "Rows that may wait; further ones are answered 429.")
    max_body: int = option(16_777_216, "Bytes of a request's body; a longer one is answered 413.")
    max_row: int = option(
        200_000, "Characters of a row, prompt and response; a longer one is answered 413."
    )
    client_timeout: int = option(30, "Seconds that a client may take to send a request.")


SERVE_OPTIONS = options_of(ServeConfig)


def parse_serving(options: Mapping[str, Any]) -> tuple[PairConfig, ServeConfig]:
    """Return a checked configuration of a pair and of how it is served.

    Args:
        options: Those of a pair and of :class:`ServeConfig`.

    Raises:
        ConfigError: One is wrong, or two do not go together.
    """
    own = {name: options[name] for name in SERVE_OPTIONS if name in options}
    config = ServeConfig(**parse_options(ServeConfig, own))
    if config.prompts == "messages" and config.prompts_template is None:
        raise ConfigError(
            "--prompts messages takes rendered prompts apart: name what rendered them with "
            f"--prompts-template. Valid: {', '.join(sorted(FORMATS))}."
        )
    if config.prompts != "messages" and config.prompts_template is not None:
        raise ConfigError("--prompts-template has no effect without --prompts messages.")
    pair = {name: value for name, value in options.items() if name not in SERVE_OPTIONS}
    if pair.get("refine") is not None:
        raise ConfigError(
            "refine compares the responses of one call, and a server scores together what happens "
            "to arrive together. Leave it out, or set dtype=float32."
        )
    return parse_pair(_rendered(pair) if config.prompts == "rendered" else pair), config


def _rendered(pair: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a pair that reads prompts as they stand."""
    for name in ("template", "strong_template", "weak_template"):
        if pair.get(name) not in (None, RENDERED):
            raise ConfigError(
                f"--prompts rendered has no place for {name}={pair[name]!r}: both models read the "
                "prompts as they stand. Leave it out, or give --prompts messages."
            )
    if pair.get("control_tokens") not in (None, "parse"):
        raise ConfigError("--prompts rendered goes with control_tokens=parse; leave it out.")
    if pair.get("end_of_turn") is not None and parse_flag("end_of_turn", pair["end_of_turn"]):
        raise ConfigError("--prompts rendered goes with end_of_turn=false; leave it out.")
    as_it_stands = {"template": RENDERED, "control_tokens": "parse", "end_of_turn": False}
    return {**pair, **as_it_stands}


def read_key(config: ServeConfig) -> str | None:
    """Return the key that requests have to bring; ``None`` where they need none.

    Raises:
        ConfigError: It cannot be read or is too short, or there is none and others can reach the
            address.
    """
    key, source = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
    if config.api_key_file is not None:
        source = f"api_key_file={config.api_key_file!r}"
        try:
            key = Path(config.api_key_file).expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{source} cannot be read: {reason(error)}.") from error
    if key is None:
        if not _is_loopback(config.host):
            raise ConfigError(
                f"host={config.host} can be reached by others, so it needs a key. Set "
                f"{KEY_VARIABLE} or give --api-key-file; or listen on 127.0.0.1."
            )
        return None
    key = key.strip()
    if len(key) < _MIN_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"The key of {source} is no key: it has at least {_MIN_KEY} printable ASCII characters "
            "and no spaces. Make one with: openssl rand -hex 32."
        )
    return key


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
