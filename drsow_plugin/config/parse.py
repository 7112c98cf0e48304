"""Values of options, as they come from a command line or from Python, checked.

Each function takes the option's name and a value, and raises a ``ConfigError`` that says what the
option takes and what was given.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from drsow_plugin.errors import ConfigError, unknown_name

DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")
_RESERVED = ("messages", "add_generation_prompt", "conversation", "chat_template", "tokenize")


def parse_choice(name: str, value: object, valid: tuple[str, ...]) -> str:
    """Return an option that is one of a few words."""
    text = str(value)
    if text not in valid:
        raise ConfigError(unknown_name(f"value of {name}", text, valid))
    return text


def parse_flag(name: str, value: object) -> bool:
    """Return an option that is true or false, or those words, or 1 or 0."""
    text = str(value).lower()
    if text not in ("true", "false", "1", "0"):
        raise ConfigError(f"{name} is true or false, got {value!r}.")
    return text in ("true", "1")


def parse_positive(name: str, value: object) -> int | None:
    """Return an option that is a whole number of at least 1, or ``None`` for ``None``."""
    if value is None:
        return None
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{name} is a whole number of at least 1, got {value!r}.")
    return int(text)


def parse_whole(name: str, value: object) -> int:
    """Return an option that is a whole number of at least 0."""
    if isinstance(value, bool) or not str(value).isdecimal():
        raise ConfigError(f"{name} is a whole number, at least 0, got {value!r}.")
    return int(str(value))


def parse_number(name: str, value: object) -> float:
    """Return an option that is a finite number, of any sign."""
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name} is a number, got {value!r:.80}.")
    return number


def parse_nats(name: str, value: object) -> float:
    """Return an option that is a finite number of nats, at least 0."""
    return _number(name, value, sys.float_info.max, "a number of nats, at least 0")


def parse_temperature(name: str, value: object) -> float:
    """Return an option that is a finite number of nats, more than 0."""
    return _positive(name, value, "a number of nats, more than 0")


def parse_probability(name: str, value: object) -> float:
    """Return an option that is a number from 0 to 1."""
    return _number(name, value, 1.0, "a number from 0 to 1")


def _positive(name: str, value: object, what: str) -> float:
    number = _number(name, value, sys.float_info.max, what)
    if not number:
        raise ConfigError(f"{name} is {what}, got {value!r}.")
    return number


def _number(name: str, value: object, maximum: float, what: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not 0 <= number <= maximum:
        raise ConfigError(f"{name} is {what}, got {value!r}.")
    return number


def parse_text(name: str, value: object) -> str:
    """Return an option that is a text, or a path, and not empty."""
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise ConfigError(f"{name} is a text, got {value!r:.80}.")
    return str(value)


def parse_path(name: str, value: object) -> str:
    """Return a Hub id or a path, whose ``~`` is the home folder."""
    return os.path.expanduser(parse_text(name, value))  # noqa: PTH111 (Hub ids are no paths)


def parse_names(name: str, value: object) -> tuple[str, ...]:
    """Return names, given as a list or as one text with commas or plus signs between them."""
    if isinstance(value, os.PathLike) or (isinstance(value, str) and Path(value).is_file()):
        value = [os.fspath(value)]
    listed = re.split(r"[,+]", value) if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(n, str) for n in listed):
        raise ConfigError(f"{name} is a list of names, or a text such as a+b, got {value!r:.80}.")
    names = tuple(n.strip() for n in listed)
    if not names or not all(names) or len(set(names)) < len(names):
        raise ConfigError(f"{name}: a name is missing or given twice in {value!r:.80}.")
    return names


def parse_urls(name: str, value: object) -> tuple[str, ...]:
    """Return addresses of servers, given as a list or as one text with plus signs between them.

    An address without a path gets ``/v1``, where OpenAI's interface is on every server.
    """
    listed = re.split(r"[+|,](?=https?://)", value) if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ConfigError(f"{name} is the URL of a server, such as {_URL}, or a list of them.")
    urls = tuple(_url(name, url) for url in listed)
    if len(set(urls)) < len(urls):
        raise ConfigError(f"{name}: a URL is given twice in {' + '.join(urls)}.")
    return urls


_URL = "http://127.0.0.1:8000/v1"


def _url(name: str, value: object) -> str:
    try:
        parts = urlsplit(str(value).strip())
        port = parts.port  # which raises where it is no number
    except ValueError:
        raise ConfigError(f"{name} is the URL of a server, such as {_URL}.") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{name}: a URL with a password in it would be written down with the results. Give "
            "the URL without, and the server's key with …server_key=."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"{name} is the URL of a server, such as {_URL}, got {value!r:.80}.")
    if parts.query or parts.fragment:
        raise ConfigError(f"{name}: a URL without ? and #, such as {_URL}, got {value!r:.80}.")
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def parse_seconds(name: str, value: object) -> float:
    """Return an option that is a number of seconds, more than 0."""
    return _positive(name, value, "a number of seconds, more than 0")


def parse_dtype(name: str, value: object) -> str:
    """Return the name of a dtype; torch's own may be given."""
    return parse_choice(name, str(value).removeprefix("torch."), DTYPES)


def parse_device_map(name: str, value: object) -> str:
    """Return a device map: a word, or a mapping as JSON."""
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    text = str(value)
    if text.startswith("{"):
        _json(name, text)
    return text


def parse_quantization(name: str, value: object) -> str:
    """Return a quantization config, given as JSON text, a JSON file or a mapping, as JSON."""
    parsed = _json_object(
        name,
        value,
        "transformers' quantization config, such as "
        '{"quant_method": "bitsandbytes", "load_in_4bit": true}',
    )
    if "quant_method" not in parsed:
        raise ConfigError(f"{name} is a JSON object with a quant_method, got {value!r:.80}.")
    return json.dumps(parsed, sort_keys=True)


def parse_template_args(name: str, value: object) -> str:
    """Return a template's variables, given as JSON text, a JSON file or a mapping, as JSON."""
    what = 'the variables of the template, such as {"enable_thinking": false}'
    parsed = _json_object(name, value, what)
    for variable in _RESERVED:
        if variable in parsed:
            raise ConfigError(f"{name}: {variable!r} is not a variable of yours. Leave it out.")
    return json.dumps(parsed, sort_keys=True)


def parse_date(name: str, value: object) -> str:
    """Return a date as ``YYYY-MM-DD``, or ``today``."""
    text = str(value)
    try:
        return text if text == "today" else datetime.date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ConfigError(
            f"{name} is a date such as 2024-07-26, or today, got {value!r:.80}."
        ) from error


def _json_object(name: str, value: object, what: str) -> dict[str, Any]:
    text = value
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        path = Path(value).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"{name}: no such file: {value!r}. Give a JSON file or object with {what}."
            )
        text = path.read_bytes()
    parsed = _json(name, text) if isinstance(text, (str, bytes)) else text
    if not isinstance(parsed, Mapping):
        raise ConfigError(f"{name} is a JSON object: {what}; got {value!r:.80}.")
    return dict(parsed)


def _json(name: str, text: str | bytes) -> object:
    try:
        parsed: object = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not valid JSON: {error}.") from error
    return parsed


def call_text(name: str, arguments: Mapping[str, object]) -> str:
    """Return a call as it is written, for a short ``repr``; long values are cut."""
    return f"{name}({', '.join(f'{key}={value!r:.80}' for key, value in arguments.items())})"
