"""Reads a recipe, and finds the files that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from drsow_plugin.config.files import code_in, read_options
from drsow_plugin.config.parse import parse_positive, parse_whole
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.pipeline.checks import check_recipe
from drsow_plugin.pipeline.values import LABELS, OF_DATA, OF_PAIRS, Recipe
from drsow_plugin.tuning.options import MODEL

T = TypeVar("T")

_SECTIONS = {
    "prompts": ("data", "held_out", "limit", "prompt_column", "unique", *OF_DATA),
    "publish": ("to", "dry_run", "public", "license", "language", "branch"),
    "human": ("data", "limit", *OF_DATA),
    "evaluate": (*OF_PAIRS, "candidates", "max_tokens", "temperature", "top_k", "top_p"),
}
_KEYS = (
    *("policy", "prompts", "generate", "annotate", "check", "publish", "tune", "grpo"),
    *("labels", "human", "seeds", "rounds", "judge", "evaluate"),
)
_LEFT_OUT = ("check", "publish", "human", "judge", "evaluate")
"""Sections that may be false: not done."""
_FILES = {"prompts": "data", "human": "data", "judge": "pairs", "evaluate": "pairs"}
"""Where a recipe names files of its own: a name is looked up beside the recipe first."""


def read_recipe(file: str, *, allow_code: bool = False) -> Recipe:
    """Read a recipe and check all of it, before anything runs.

    Args:
        file: YAML or JSON.
        allow_code: Whether it may run a plugin, or code from a model's repository.

    Raises:
        ConfigError: It cannot be read, a key is unknown or missing, a value is wrong, or it would
            run code.
    """
    read = read_options(file, file)
    for name in read:
        if name not in _KEYS:
            raise ConfigError(f"{file}: {unknown_name('key', name, _KEYS)}")
    try:
        recipe = _parsed(Path(file).expanduser(), read)
        check_recipe(recipe, frozenset(name for name, value in read.items() if value is not None))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    code = [
        found
        for section in read.values()
        if isinstance(section, Mapping)
        for found in code_in(section, section)
    ]
    if code and not allow_code:
        raise ConfigError(
            f"{file} would run code: {'; '.join(code)}. Look at it, and add --allow-code if you "
            "trust it."
        )
    return recipe


def _parsed(file: Path, read: Mapping[str, Any]) -> Recipe:
    sections = {name: _section(name, read, file.parent) for name in _KEYS}
    prompts, judge = sections["prompts"], sections["judge"]
    if not prompts or "data" not in prompts:
        raise ConfigError("prompts has to name data, such as prompts: {data: prompts.jsonl}.")
    recipe = Recipe(
        name=file.stem,
        policy=_policy(read.get("policy")),
        prompts=prompts,
        generate=sections["generate"] or {},
        annotate=sections["annotate"] or {},
        check=None if read.get("check") is False else sections["check"] or {},
        publish=sections["publish"],
        tune=None if sections["grpo"] else sections["tune"] or {},
        grpo=sections["grpo"],
        labels=_listed("labels", read.get("labels", LABELS[:1]), _label),
        human=sections["human"],
        seeds=_listed("seeds", read.get("seeds", (0,)), parse_whole),
        rounds=parse_positive("rounds", read.get("rounds", 1)) or 1,
        judge=judge,
        evaluate=sections["evaluate"],
    )
    return recipe


def _section(name: str, read: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """Return a section with its files found, or ``None`` where it is not there."""
    value = read.get(name)
    if name in ("labels", "seeds", "rounds", "policy") or value is None:
        return None
    if value is False and name in _LEFT_OUT:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} holds options by name, got {value!r:.80}.")
    section = {str(key).replace("-", "_"): of for key, of in value.items() if of is not None}
    valid = _SECTIONS.get(name)
    for key in section if valid else ():
        if key not in (valid or ()):
            raise ConfigError(f"{name}: {unknown_name('key', key, valid or ())}")
    if (named := _FILES.get(name)) in section:
        given = section[named]
        if not isinstance(given, str):
            raise ConfigError(f"{name}: {named} is one file, folder or Hub id, got {given!r:.80}.")
        beside = folder / given
        section[named] = str(beside) if beside.exists() else given
    return section


def _policy(value: object) -> dict[str, Any]:
    """Return the options of the policy, by the names that ``drsow tune`` gives them."""
    if isinstance(value, str) and value:
        return {"policy": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("model"), str):
        raise ConfigError(
            "policy is the model to tune, such as policy: org/model, or policy: {model: org/model, "
            f"dtype: bfloat16}}, got {value!r:.80}."
        )
    for key in value:
        if key not in ("model", *MODEL):
            raise ConfigError(f"policy: {unknown_name('key', str(key), ('model', *MODEL))}")
    return {"policy": value["model"], **{str(k): v for k, v in value.items() if k != "model"}}


def _listed(name: str, value: object, parse: Callable[[str, object], T]) -> tuple[T, ...]:
    """Return the values of a list, each there once."""
    listed = value if isinstance(value, (list, tuple)) else [value]
    parsed = tuple(parse(name, one) for one in listed)
    if not parsed or len(set(parsed)) < len(parsed):
        raise ConfigError(f"{name} names one or more, each once, got {value!r:.80}.")
    return parsed


def _label(name: str, value: object) -> str:
    if value not in LABELS:
        raise ConfigError(f"{name}: {unknown_name('labels', str(value), LABELS)}")
    return str(value)
