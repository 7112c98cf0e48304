"""What lm-eval asks for, and gives, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance

from drsow_plugin.config.routing import KNOWN, RoutingConfig
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.harness.benchmarks.loading import DOMAINS
from drsow_plugin.harness.context import ChatContext, PreferenceInstance


def domain_labels(requests: Sequence[Instance], routing: RoutingConfig) -> list[str | None]:
    """Return the domain that each document names, in its field ``domain_column``.

    Raises:
        DataError: It is needed and not there, or not a text.
    """
    needed = routing.known_column is not None
    field = routing.known_column or KNOWN
    labels: list[str | None] = []
    for request in requests:
        document = request.doc or {}
        domain = document.get(field)
        if needed and (field not in document or not isinstance(domain, str | None)):
            raise DataError(
                f"{request.task_name!r}: the field {field!r} is to name a domain, got "
                f"{document.get(field, 'no such field')!r:.80}. Name another one with "
                "domain_column=…, or use another router than column."
            )
        labels.append(domain if needed or domain in DOMAINS else None)
    return labels


def require_preference_tasks(requests: Sequence[Instance], why: str) -> None:
    """Refuse tasks that would take NaN, which stands for a missing reward, for a number."""
    for request in requests:
        if not isinstance(request, PreferenceInstance):
            raise ConfigError(
                f"The task {request.task_name!r} cannot take a response without a reward ({why}). "
                "Use overflow=error, or a preference task of drsow-plugin."
            )


def check_distinct(contexts: Sequence[str]) -> None:
    """Refuse prompts that lm-eval's response cache, which keys by text, would mix up."""
    seen: dict[str, object] = {}
    for context in contexts:
        messages = context.messages if isinstance(context, ChatContext) else None
        if seen.setdefault(str(context), messages) != messages:
            raise ConfigError(
                f"--use_cache cannot tell two prompts apart that read the same: {context!r:.80}. "
                "Run without it."
            )


def use_own_table(cache: Any, fingerprint: str) -> None:
    """Make lm-eval's response cache read and write the rewards of one pair only.

    Its keys name the request and not the model. In the table that all models share, a reward
    would be read as the likelihood of the next model that is given the same file.

    Args:
        cache: The cache that lm-eval opened.
        fingerprint: Of everything that a reward depends on.

    Raises:
        ConfigError: This lm-eval keeps responses in another way.
    """
    if not hasattr(cache, "tablename"):  # a SqliteDict has one
        raise ConfigError(
            f"--use_cache: this lm-eval keeps responses in a {type(cache).__name__}, in which "
            "rewards could be taken for another model's values. Run without it."
        )
    table = f"drsow_{fingerprint}"
    type(cache)(cache.filename, tablename=table).close()  # makes the table
    cache.tablename = table


def with_strong(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with lm-eval's name for a model, ``pretrained``, as ``strong``."""
    renamed = dict(options)
    if "pretrained" in renamed:
        if "strong" in renamed:
            raise ConfigError("pretrained is another name for strong: give one of them.")
        renamed["strong"] = renamed.pop("pretrained")
    return renamed


def row_limit(batch_size: int | str | None, max_batch_size: int | None) -> int | None:
    """Return the maximum of rows in a batch, out of lm-eval's two options; ``None`` is no limit."""
    text = str(batch_size or "auto")
    if text.startswith("auto") or text == "1":
        return max_batch_size
    if not text.isdecimal():
        raise ConfigError(f"batch_size is a whole number or auto, got {batch_size!r}.")
    return int(text)


def only_scores(requests: Sequence[Instance], wanted: str, kind: str) -> str:
    """Return the message for a task that asks for what a reward model does not do."""
    task = requests[0].task_name if requests else "the task"
    return (
        f"{task!r} asks for {wanted}, and a {kind} only scores a response to a "
        "prompt. Use a multiple-choice or a preference task."
    )
