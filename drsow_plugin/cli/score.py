"""The command ``drsow score``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from drsow_plugin.cli.annotate import VALID
from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import data_options, read_lines, write_line
from drsow_plugin.cli.options import CONTEXT, EPILOG, config_options, pair_options
from drsow_plugin.config.pair import OPTIONS
from drsow_plugin.config.parse import parse_flag, parse_positive
from drsow_plugin.config.routing import COLUMN
from drsow_plugin.printable import finite, json_line
from drsow_plugin.records import BAD_ROW

if TYPE_CHECKING:
    from drsow_plugin.scoring.drsow import DrSoW

EXTRA = ("token_logprobs", "rows")
SOME_FAILED = 3
"""Exit status where a row has no reward; all rows are written all the same."""

DOMAIN = "domain"
FIELDS = [
    "reward",
    "strong_logprob",
    "weak_logprob",
    "strong_tokens",
    "weak_tokens",
    "reason",
    "notes",
]


@click.command(context_settings=CONTEXT, epilog=EPILOG)
@click.argument("file", default="-")
@pair_options
@data_options
@click.option("--token-logprobs", help="true writes the log-prob of each token too. [false]")
@click.option("--rows", help="Rows that are read, scored and written together. [128]")
@config_options
def score(file: str, config: str | None, **options: Any) -> None:
    """Score responses: JSON lines in, JSON lines out.

    Each line of FILE, or of the standard input, is an object with a prompt (a text, or a list of
    messages) and a response; FILE may be compressed (.gz), or anything that annotate reads. Each
    line of the output is that object with reward, strong_logprob, weak_logprob (nats),
    strong_tokens, weak_tokens, notes on what was unusual, a reason where there is no reward, and
    with a router domain and domain_confidence. The exit status is 3 where a row has no reward.

    For example:

      echo '{"prompt": "Name a prime.", "response": "Seven."}' | drsow score --strong demo --weak
      demo --weak-template none
    """
    merged = merge_config(options, config, VALID.union(EXTRA))  # those of annotate say nothing here
    rows = parse_positive("rows", merged.get("rows", 128)) or 128
    per_token = parse_flag("token_logprobs", merged.get("token_logprobs", False))
    lines = enumerate(read_lines(file, merged), start=1)

    from drsow_plugin.config.pair import parse_pair
    from drsow_plugin.scoring.drsow import DrSoW

    drsow = DrSoW.from_config(parse_pair({n: merged[n] for n in OPTIONS if n in merged}))
    failed = total = 0
    not_blank = ((number, line) for number, line in lines if line.strip())
    while batch := list(islice(not_blank, rows)):
        for row in _score(drsow, batch, per_token):
            total += 1
            failed += row["reward"] is None
            write_line(json_line(finite(row)))
    if not total:
        click.echo(f"{file} holds no line.", err=True)
    if failed:
        click.echo(f"{failed} of {total} responses have no reward; see their reason.", err=True)
        raise click.exceptions.Exit(SOME_FAILED)


@dataclass(frozen=True)
class _Line:
    """A line that was read: its fields, and what is wrong with it."""

    fields: dict[str, Any]
    problem: str | None = None


def _score(
    drsow: DrSoW, lines: list[tuple[int, bytes]], per_token: bool
) -> Iterator[dict[str, Any]]:
    routing = drsow.config.routing
    column = routing.known_column
    fields = [*FIELDS, DOMAIN, "domain_confidence"] if routing.is_on else FIELDS
    is_copied = routing.router == COLUMN and column == DOMAIN  # what is written is what was read
    written = {*fields} - {DOMAIN} if is_copied else {*fields}
    records = [_read(line, column, written) for _, line in lines]
    rows = [record.fields for record in records if record.problem is None]
    rewards = iter(
        drsow.score(
            [row["prompt"] for row in rows],
            [row["response"] for row in rows],
            domains=None if column is None else [row[column] for row in rows],
            on_error="null",
            token_logprobs=per_token,
        )
    )
    per_token_fields = ["strong_token_logprobs", "weak_token_logprobs"] if per_token else []
    for (number, _), record in zip(lines, records, strict=True):
        if record.problem is not None:
            reason = f"{BAD_ROW}: line {number}: {record.problem}"
            yield record.fields | dict.fromkeys(fields) | {"reason": reason}
            continue
        reward = next(rewards)
        yield record.fields | {name: getattr(reward, name) for name in fields + per_token_fields}


def _read(line: bytes, column: str | None, written: Set[str]) -> _Line:
    """Return a line as an object with a prompt and a response, or with what is wrong with it.

    Args:
        line: JSON.
        column: The field that names the domain, where it is needed.
        written: Fields that will be written.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _Line({}, f"not JSON: {error}")
    if not isinstance(row, dict) or not {"prompt", "response"} <= set(row):
        fields = row if isinstance(row, dict) else {}
        return _Line(fields, "a line is an object with 'prompt' and 'response'")
    if column is not None and not isinstance(row.get(column, 0), str | None):
        return _Line(row, f"the line has no field {column!r} that names a domain")
    taken = sorted(written & set(row))
    if taken:
        problem = f"the line has {', '.join(taken)} already, which would be written. Rename it"
        return _Line(row, problem)
    return _Line(row)
