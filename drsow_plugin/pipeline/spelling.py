"""Options as the commands of a recipe spell them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from drsow_plugin.pipeline.values import Recipe
from drsow_plugin.tuning.options import MODEL

_SWITCHES = ("public",)
"""Options that stand without a value."""


def policy_of(recipe: Recipe) -> dict[str, Any]:
    """Return the options of the policy as it begins."""
    return dict(recipe.policy)


def sampled_here(recipe: Recipe) -> dict[str, Any]:
    """Return the options of sampling from what is trained, which no server holds."""
    return {name: of for name, of in recipe.generate.items() if not name.startswith("server")}


def judge_options(recipe: Recipe, judge: str | None) -> dict[str, Any]:
    """Return the options of a judge as ``drsow evaluate`` spells them."""
    if judge is None or recipe.judge is None:
        return {}
    if "model" not in recipe.judge:
        return {"judge": judge}  # trained on the tokens that it reads as it stands
    own = {f"judge_{name}": value for name, value in recipe.judge.items() if name != "model"}
    return {"judge": judge, **own}


def named(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a policy with its name before them."""
    options = {f"policy_{name}": value for name, value in policy.items() if name != "policy"}
    return {"policy": policy["policy"], **options}


def of_side(side: str, policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a policy as those of a side."""
    options = {f"{side}_{name}": value for name, value in policy.items() if name in MODEL}
    return {side: policy["policy"], **options}


def flags(options: Mapping[str, Any]) -> list[str]:
    """Return options as a command line spells them."""
    flags: list[str] = []
    for name, value in options.items():
        if value is None or (value is False and name in _SWITCHES):
            continue
        flags.append(f"--{name.replace('_', '-')}")
        if not (value is True and name in _SWITCHES):
            flags.append(_text(value))
    return flags


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value))
    return json.dumps(value) if isinstance(value, Mapping) else str(value)
