"""The command ``drsow score``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from drsow_plugin.cli.annotate import VALID
from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.options import CONTEXT, EPILOG, config_options, pair_options
from drsow_plugin.config import OPTIONS
from drsow_plugin.printable import json_line
from drsow_plugin.records import BAD_ROW
from drsow_plugin.routing_config import COLUMN
from drsow_plugin.values import parse_flag, parse_positive

if TYPE_CHECKING:
    from drsow_plugin.reward import DrSoW

EXTRA = ("token_logprobs", "rows")
DOMAIN = "domain"
FIELDS = (
    *("reward", "strong_logprob", "weak_logprob", "strong_tokens", "weak_tokens"),
    *("reason", "notes"),
)


@click.command(context_settings=CONTEXT, epilog=EPILOG)
@click.argument("file", type=click.File("rb"), default="-")
@pair_options
@click.option("--token-logprobs", help="true writes the log-prob of each token too. [false]")
@click.option("--rows", help="Rows that are read, scored and written together. [128]")
@config_options
def score(file: BinaryIO, config: str | None, **given: Any) -> None:
    """Score responses: JSON lines in, JSON lines out.

    Each line of FILE, or of the standard input, is an object with a prompt (a text, or a list of
    messages) and a response. Each line of the output is that object without the two, with
    reward, strong_logprob, weak_logprob (nats), strong_tokens, weak_tokens, notes on what was
    unusual, a reason where there is no reward, and with a router domain and domain_confidence.

    For example:

      echo '{"prompt": "Name a prime.", "response": "Seven."}' | drsow score --strong demo --weak
      demo --weak-template none
    """
    merged = merge_config(given, config, VALID.union(EXTRA))  # those of annotate say nothing here
    options = {name: merged[name] for name in (*OPTIONS, *EXTRA) if name in merged}
    rows = parse_positive("rows", options.pop("rows", 128)) or 128
    per_token = parse_flag("token_logprobs", options.pop("token_logprobs", False))

    from drsow_plugin.config import parse_pair
    from drsow_plugin.reward import DrSoW

    drsow = DrSoW.from_config(parse_pair(options))
    failed = 0
    lines = (line for line in file if line.strip())
    while batch := list(islice(lines, rows)):
        for scored in _score(drsow, batch, per_token):
            failed += scored["reward"] is None
            click.echo(json_line(scored))
    if failed:
        click.echo(f"{failed} responses have no reward; see their reason.", err=True)


def _score(drsow: DrSoW, lines: list[bytes], per_token: bool) -> Iterator[dict[str, Any]]:
    routing = drsow.config.routing
    named = (DOMAIN, "domain_confidence") if routing.is_on else ()
    column = routing.known_column
    same = routing.router == COLUMN and column == DOMAIN  # what is written is what was read
    taken = {*FIELDS, *named} - ({DOMAIN} if same else set())
    read = [_read(line, column, taken) for line in lines]
    good = [row for row in read if isinstance(row, dict)]
    known = None if column is None else [row[column] for row in good]
    rewards = iter(
        drsow.score(
            [row["prompt"] for row in good],
            [row["response"] for row in good],
            domains=known,
            on_error="null",
            token_logprobs=per_token,
        )
    )
    fields = (*FIELDS, *named)
    tokens = ("strong_token_logprobs", "weak_token_logprobs") if per_token else ()
    for row in read:
        if isinstance(row, str):
            yield {**dict.fromkeys(fields), "reason": f"{BAD_ROW}: {row}"}
            continue
        reward = next(rewards)
        others = {name: value for name, value in row.items() if name not in ("prompt", "response")}
        yield others | {name: getattr(reward, name) for name in (*fields, *tokens)}


def _read(line: bytes, column: str | None, written: Set[str]) -> dict[str, Any] | str:
    """Return a line as an object with a prompt and a response, or what is wrong with it.

    Args:
        line: JSON.
        column: The field that names the domain, where it is needed.
        written: Fields that will be written.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(row, dict) or not {"prompt", "response"} <= set(row):
        return "a line is an object with 'prompt' and 'response'"
    if column is not None and not isinstance(row.get(column, 0), str | None):
        return f"the line has no field {column!r} that names a domain"
    taken = sorted(written & set(row))
    if taken:
        return f"the line has {', '.join(taken)} already, which would be written. Rename it"
    return row
