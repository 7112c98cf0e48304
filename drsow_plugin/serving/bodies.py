"""What requests hold and what they are answered, in each of the three wire formats.

Ours is told row by row. OpenRLHF takes ``null`` in a list for a number and fails far from here,
and slime takes it for a reward; there, a row without a reward is an error of the request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from drsow_plugin.config.routing import COLUMN, RoutingConfig
from drsow_plugin.errors import DataError, unknown_name
from drsow_plugin.records import BAD_ROW, SIDES, Problem, Prompt, Reward
from drsow_plugin.serving.options import ServeConfig
from drsow_plugin.serving.turns import response_of, turns_of

OK = "ok"
_FIELDS = (
    *("reward", "strong_logprob", "weak_logprob", "strong_tokens", "weak_tokens"),
    *("domain", "domain_confidence"),
)
_LOGGED = ("strong_logprob", "weak_logprob", "strong_tokens", "weak_tokens")


class Refused(Exception):
    """A request that is not answered with rewards.

    Attributes:
        code: The HTTP status.
        headers: Of the answer.
    """

    def __init__(self, code: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.headers = dict(headers or {})


@dataclass
class Query:
    """The rows of a request.

    Attributes:
        prompts: Texts or messages, as the pair is to read them.
        responses: One for each.
        domains: What the request says of the prompts' domains.
        problems: Why rows cannot be scored, by index.
        notes: What was unusual about rows, by index.
    """

    prompts: list[Prompt]
    responses: list[str]
    domains: list[str | None]
    problems: dict[int, Problem] = field(default_factory=dict)
    notes: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def scored(self) -> list[int]:
        """The rows that have no problem yet."""
        return [index for index in range(len(self.responses)) if index not in self.problems]

    def outcomes(self, rewards: Sequence[Reward]) -> list[Outcome]:
        """Return how each row went, given the rewards of those that were scored."""
        given = iter(rewards)
        return [
            Outcome(None, (self.problems[index],), ())
            if index in self.problems
            else Outcome.of(next(given), self.notes.get(index, ()))
            for index in range(len(self.responses))
        ]


class Outcome(NamedTuple):
    """How a row went: its reward, or its problems; and notes."""

    reward: Reward | None
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, reward: Reward, notes: tuple[str, ...]) -> Outcome:
        """Return the outcome of a row that was scored, with notes of before."""
        cuts = ((side, getattr(reward, f"{side}_truncated")) for side in SIDES)
        cut = (f"{side}: {count} prompt tokens cut from the left" for side, count in cuts if count)
        return cls(reward, reward.problems, (*notes, *reward.notes, *cut))

    @property
    def status(self) -> str:
        """``ok``, or why there is no reward."""
        return "; ".join(map(str, self.problems)) or OK


class Wire(NamedTuple):
    """A wire format: from a body to rows, and from rows to the answer."""

    read: Callable[[Any], tuple[Any, Any, Any]]
    answer: Callable[[Sequence[Outcome]], Any]
    is_trainers: bool


def parse_json(body: bytes) -> dict[str, Any]:
    """Return a body's object.

    Raises:
        Refused: It is no JSON object.
    """
    try:
        values: object = json.loads(body, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise Refused(400, f"The body is not JSON: {error}.") from error
    except UnicodeDecodeError as error:  # what it says quotes the bytes
        raise Refused(400, "The body is not JSON: it is not UTF-8. Is it compressed?") from error
    except RecursionError as error:
        raise Refused(400, "The body is nested too deeply.") from error
    except ValueError as error:
        raise Refused(400, "The body has a number of too many digits.") from error
    if not isinstance(values, dict):
        raise Refused(400, f"The body is a JSON object, got {_kind(values)}.")
    return values


def _kind(value: object) -> str:
    """Return what JSON calls a value."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return "a number"


def _no_number(name: str) -> None:
    raise Refused(400, f"The body is not JSON: {name} is no number of JSON's.")


def read_query(wire: Wire, body: bytes, config: ServeConfig, routing: RoutingConfig) -> Query:
    """Return the rows of a body.

    Raises:
        Refused: It is not what it should be, or too much.
    """
    if wire.is_trainers and config.prompts is None:
        raise Refused(
            400,
            "A trainer sends prompts that its template has rendered: start the server with "
            "--prompts rendered, or --prompts messages --prompts-template NAME.",
        )
    prompts, responses, domains = wire.read(parse_json(body))
    _check_size(prompts, responses, config)
    query = Query(prompts, responses, _checked_domains(domains, len(prompts), routing))
    for index in range(len(prompts)):
        try:
            _read_row(query, index, config)
        except DataError as error:
            query.problems[index] = Problem(BAD_ROW, str(error))
    return query


def _check_size(prompts: Sequence[Any], responses: Sequence[Any], config: ServeConfig) -> None:
    if len(prompts) != len(responses):
        raise Refused(
            400, f"There are {len(prompts)} prompts and {len(responses)} responses. Give as many."
        )
    if len(prompts) > config.queue_rows:
        raise Refused(
            413,
            f"A request has at most {config.queue_rows} rows, got {len(prompts)}. Send several.",
        )
    for index, row in enumerate(zip(prompts, responses, strict=True)):
        size = sum(len(part) if isinstance(part, str) else len(str(part)) for part in row)
        if size > config.max_row:
            raise Refused(
                413,
                f"Row {index} has {size} characters; at most {config.max_row} are taken "
                "(--max-row).",
            )


def _checked_domains(domains: Any, count: int, routing: RoutingConfig) -> list[str | None]:
    if domains is None:
        if routing.router == COLUMN:
            raise Refused(400, "The server's router goes by the 'domains' of prompts; give them.")
        return [None] * count
    if not routing.is_on and any(domains):
        raise Refused(400, "'domains' were given, and the server has no router.")
    if not all(isinstance(domain, str | None) for domain in domains):
        raise Refused(400, "Each of 'domains' is a text, or null.")
    if len(domains) != count:
        raise Refused(400, f"There are {count} prompts and {len(domains)} domains. Give as many.")
    return list(domains)


def _read_row(query: Query, index: int, config: ServeConfig) -> None:
    """Take a rendered prompt and its response apart, where that was asked for."""
    prompt, response = query.prompts[index], query.responses[index]
    if isinstance(prompt, str):
        if config.prompts == "messages" and isinstance(response, str):
            template = config.prompts_template or ""
            query.prompts[index] = turns_of(prompt, template)
            query.responses[index], query.notes[index] = response_of(response, template)
    elif config.prompts == "rendered":
        raise DataError("with --prompts rendered a prompt is a text, and this one is not.")


def _list(values: Mapping[str, Any], name: str) -> list[Any]:
    if name not in values:
        raise Refused(400, f"The body has no {name!r}; it has {sorted(values)!s:.200}.")
    if not isinstance(values[name], list):
        raise Refused(400, f"{name!r} is a list, got {_kind(values[name])}.")
    return list(values[name])


_OURS = ("prompts", "responses", "domains")


def _read_ours(values: dict[str, Any]) -> tuple[Any, Any, Any]:
    for name in values:
        if name not in _OURS:
            raise Refused(400, unknown_name("field", name, _OURS))
    domains = _list(values, "domains") if values.get("domains") is not None else None
    return _list(values, "prompts"), _list(values, "responses"), domains


def _answer_ours(outcomes: Sequence[Outcome]) -> Any:
    return {"rewards": [_row(outcome) for outcome in outcomes]}


def _row(outcome: Outcome) -> dict[str, Any]:
    values = {name: getattr(outcome.reward, name, None) for name in _FIELDS}
    if values["reward"] is None:
        values |= {"strong_tokens": None, "weak_tokens": None}  # none was scored
    row: dict[str, Any] = {**values, "status": outcome.status, "notes": [*outcome.notes]}
    return row


def _read_openrlhf(values: dict[str, Any]) -> tuple[Any, Any, Any]:
    queries, prompts = _list(values, "query"), _list(values, "prompts")
    if len(queries) != len(prompts):
        raise Refused(400, f"There are {len(queries)} queries and {len(prompts)} prompts.")
    return prompts, [_response_in(*row) for row in zip(queries, prompts, strict=True)], None


def _response_in(query: Any, prompt: Any) -> str:
    """Return what of a query follows its prompt."""
    if not isinstance(query, str) or not isinstance(prompt, str):
        raise Refused(400, "A query and a prompt of OpenRLHF's are texts.")
    if not query.startswith(prompt):
        raise Refused(
            422,
            "A query does not begin with its prompt, so the response cannot be told from it: the "
            "trainer has cut the prompt, or its tokenizer does not give a text back as it was.",
        )
    return query[len(prompt) :]


def _answer_openrlhf(outcomes: Sequence[Outcome]) -> Any:
    rewards = _all_rewards(outcomes)
    numbers = [reward.reward for reward in rewards]
    logged = {name: [float(getattr(reward, name)) for reward in rewards] for name in _LOGGED}
    return {"rewards": numbers, "scores": numbers, "extra_logs": logged}


def _read_slime(values: dict[str, Any]) -> tuple[Any, Any, Any]:
    for name in ("prompt", "response"):
        if name not in values:
            raise Refused(400, f"The body has no {name!r}; it has {sorted(values)!s:.200}.")
    return [values["prompt"]], [values["response"]], None


def _answer_slime(outcomes: Sequence[Outcome]) -> Any:
    (reward,) = _all_rewards(outcomes)
    return reward.reward


def _all_rewards(outcomes: Sequence[Outcome]) -> list[Reward]:
    """Return the rewards of all rows, each of which has one.

    Raises:
        Refused: One has none.
    """
    for index, outcome in enumerate(outcomes):
        if outcome.reward is None or outcome.reward.reward is None:
            raise Refused(422, f"row {index} has no reward: {outcome.status}")
    return [outcome.reward for outcome in outcomes if outcome.reward is not None]


WIRES = {
    "/v1/rewards": Wire(_read_ours, _answer_ours, is_trainers=False),
    "/openrlhf": Wire(_read_openrlhf, _answer_openrlhf, is_trainers=True),
    "/slime": Wire(_read_slime, _answer_slime, is_trainers=True),
}
"""The wire formats, by path."""
