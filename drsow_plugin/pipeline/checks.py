"""Checks a recipe as a whole, and each of its sections as the command does that it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from drsow_plugin.annotate.drivers import Where
from drsow_plugin.annotate.options import parse_labelling
from drsow_plugin.config.parse import parse_flag, parse_positive, parse_text
from drsow_plugin.config.reward_model import parse_reward_model
from drsow_plugin.data.loading import check_there
from drsow_plugin.errors import ConfigError, DataError, MissingExtraError, unknown_name
from drsow_plugin.generation.options import parse_generation
from drsow_plugin.hashing import file_sha256
from drsow_plugin.pipeline.spelling import sampled_here
from drsow_plugin.pipeline.values import LABELS, OF_DATA, OF_PAIRS, Recipe
from drsow_plugin.publishing.publish import check_name
from drsow_plugin.quality.options import CHECK_OPTIONS, READ, ROWS_OPTIONS, parse_quality
from drsow_plugin.tuning.online_options import parse_online
from drsow_plugin.tuning.options import MODEL, parse_tuning

_NOT_ONLINE = ("annotate", "check", "publish", "tune", "labels", "human", "rounds")
_WHERE = ("num_proc", "driver", "num_actors", "gpus_per_actor")
_HOW_RUN = (*_WHERE, "shard_rows", "page")
"""Options of ``drsow annotate`` that change no label."""
_ROWS = ("limit", *OF_DATA)
"""Options of ``drsow tune`` about what is read."""
_OF_POLICY = ("policy", "revision", "adapter", "adapter_revision")
"""What says which model the policy is: nothing but the section of that name."""


def check_recipe(recipe: Recipe, given: frozenset[str]) -> None:
    """Check that a recipe can be run, as far as that is known before.

    Args:
        recipe: What was read.
        given: The keys of the file.

    Raises:
        ConfigError: A section is missing, has no effect, or holds what its command does not take.
    """
    for wrong, message in (*_needs(recipe), *_idle(recipe, given)):
        if wrong:
            raise ConfigError(message)
    for name, check in _sections(recipe):
        try:
            check()
        except (ConfigError, DataError) as error:
            raise ConfigError(f"{name}: {error}") from error


def _needs(recipe: Recipe) -> list[tuple[bool, str]]:
    """Return what may be missing, and whether it is."""
    judge, human, publish = recipe.judge, recipe.human, recipe.publish
    return [
        (
            recipe.grpo is None and not recipe.annotate,
            "annotate has to name the pair, such as annotate: {strong: org/a, weak: org/b}.",
        ),
        (
            publish is not None and "to" not in publish,
            "publish has to name the data set, such as publish: {to: you/labels}.",
        ),
        (
            human is not None and "data" not in human,
            "human has to name data: a file of pairs.",
        ),
        (
            judge is not None and ("pairs" in judge) == ("model" in judge),
            "judge names pairs to train one on, or a model that is one.",
        ),
        (
            recipe.evaluate is not None and not recipe.prompts.get("held_out"),
            "evaluate needs prompts that are held out: prompts: {held_out: 100}.",
        ),
        (recipe.rounds > 2, f"rounds is 1 or 2, got {recipe.rounds}."),
        (
            recipe.rounds > 1 and recipe.labels[0] != LABELS[0],
            "rounds: 2 goes on with what was tuned on the labels given: name them first.",
        ),
    ]


def _idle(recipe: Recipe, given: frozenset[str]) -> list[tuple[bool, str]]:
    """Return what may have no effect, and whether it has none."""
    online = [name for name in _NOT_ONLINE if recipe.grpo is not None and name in given]
    tuned = {**(recipe.tune or {}), **(recipe.grpo or {})}
    return [
        (
            bool(online),
            f"{', '.join(online)} has no effect with grpo, which labels as it trains.",
        ),
        (
            recipe.judge is not None and recipe.evaluate is None,
            "judge has no effect without evaluate.",
        ),
        (
            "seed" in tuned or "labels" in tuned,
            "seed and labels are no options of tune here: list them as seeds and labels.",
        ),
        *(
            (
                bool(recipe.prompts.get(name)) and recipe.evaluate is None,
                f"prompts: {name} has no effect without evaluate, for which prompts are split.",
            )
            for name in ("held_out", "unique")
        ),
        (
            str(tuned.get("method")) == "reward",
            "tune: method=reward trains no policy. Give judge: {pairs: …} for a reward model.",
        ),
        *(
            (name in section, f"{key}: {name} has no effect; name the model under policy.")
            for key, section in (("generate", recipe.generate), ("tune", recipe.tune or {}))
            for name in _OF_POLICY
        ),
        *(
            (name.startswith("policy"), f"grpo: {name} has no effect; name the model under policy.")
            for name in recipe.grpo or {}
        ),
    ]


def _sections(recipe: Recipe) -> list[tuple[str, Callable[[], object]]]:
    """Return what checks each section, with its name."""
    source = recipe.policy["policy"]
    model = {name: value for name, value in recipe.policy.items() if name in MODEL}
    sampled = {**model, **recipe.generate}
    checks: list[tuple[str, Callable[[], object]]] = []
    checks.append(("generate", lambda: parse_generation(source, sampled)))
    if recipe.grpo is not None:
        online = {**{f"policy_{name}": of for name, of in model.items()}, **recipe.grpo}
        checks.append(("grpo", lambda: parse_online(source, online)))
    else:
        pair = {name: of for name, of in recipe.annotate.items() if name not in _HOW_RUN}
        tuned = {name: of for name, of in (recipe.tune or {}).items() if name not in _ROWS}
        checks += [
            ("annotate", lambda: parse_labelling(pair)),
            ("annotate", lambda: _check_run(recipe.annotate)),
            ("tune", lambda: parse_tuning(source, {**model, **tuned})),
            ("check", lambda: _check_bounds(recipe.check or {})),
        ]
    if recipe.judge is not None:
        checks.append(("judge", lambda: _check_judge(recipe.judge or {}, source)))
    if recipe.evaluate is not None:
        own = {n: v for n, v in recipe.evaluate.items() if n not in OF_PAIRS}
        answered = {"candidates": 1, **model, **sampled_here(recipe), **own, **_opened_as(recipe)}
        checks.append(("evaluate", lambda: parse_generation(source, answered)))
        checks.append(("evaluate", lambda: _check_apart(recipe)))
    if recipe.publish is not None:
        checks.append(("publish", lambda: _check_published(recipe.publish or {})))
    read = ("prompts", recipe.prompts), ("human", recipe.human), ("evaluate", recipe.evaluate)
    for name, section in (*read, ("judge", recipe.judge), ("tune", recipe.tune)):
        checks.append((name, partial(_check_rows, section or {})))
    return checks


def _check_rows(section: Mapping[str, Any]) -> None:
    """Check what is read, and how many of it."""
    for name in ("limit", "held_out"):
        parse_positive(name, section.get(name))
    parse_flag("unique", section.get("unique", False))
    for name in ("data", "pairs"):
        if section.get(name) is not None:
            check_there(section[name])


def _check_apart(recipe: Recipe) -> None:
    """Check that nothing is trained on what it is measured on, as far as that is one file."""
    evaluate = recipe.evaluate or {}
    measured = evaluate.get("pairs")
    trained = ((recipe.human or {}).get("data"), (recipe.judge or {}).get("pairs"))
    if measured is None or evaluate.get("data_split") is not None:
        return
    for file in trained:
        if file is not None and _is_same(file, measured):
            raise ConfigError(f"pairs: {file} is trained on. Hold some pairs out to measure by.")


def _is_same(one: str, other: str) -> bool:
    first, second = Path(one).expanduser(), Path(other).expanduser()
    if not (first.is_file() and second.is_file()):
        return one == other
    return file_sha256(first) == file_sha256(second)


def _check_run(annotate: Mapping[str, Any]) -> None:
    where: Any = {name: annotate.get(name) for name in _WHERE}
    Where.of(where)
    parse_positive("shard_rows", annotate.get("shard_rows"))
    parse_flag("page", annotate.get("page", False))


def _check_published(publish: Mapping[str, Any]) -> None:
    check_name(parse_text("to", publish.get("to")))
    for name in ("dry_run", "public"):
        parse_flag(name, publish.get(name, False))


def _opened_as(recipe: Recipe) -> dict[str, str]:
    """Return the option that what is trained is opened with, which not all engines take."""
    trained = recipe.grpo or recipe.tune or {}
    is_adapter = trained.get("lora_rank") and not trained.get("merge")
    return {"adapter": "what was trained"} if is_adapter else {}


def _check_judge(judge: Mapping[str, Any], source: object) -> None:
    if "model" in judge:
        options = {name: value for name, value in judge.items() if name != "model"}
        parse_reward_model({"pretrained": parse_text("model", judge["model"]), **options})
        return
    ours = ("pairs", "policy", *_ROWS)
    options = {name: value for name, value in judge.items() if name not in ours}
    parse_tuning(judge.get("policy", source), {"method": "reward", **options})


def _check_bounds(options: Mapping[str, Any]) -> None:
    valid = (*CHECK_OPTIONS, *ROWS_OPTIONS, *READ)
    for name in options:
        if name not in valid:
            raise ConfigError(unknown_name("option", name, valid))
    parse_quality(options)


def check_installed(recipe: Recipe) -> None:
    """Check that what later steps need is there, before the first one runs.

    Raises:
        ConfigError: vLLM is not.
        MissingExtraError: An extra of this package is not.
    """
    if not (find_spec("trl") and find_spec("peft")):
        raise MissingExtraError("The step that trains the policy", "train")
    options = {**recipe.annotate, **(recipe.grpo or {}), **recipe.generate}
    served = any(name.endswith("server") and value for name, value in options.items())
    if served and not find_spec("aiohttp"):
        raise MissingExtraError("A model on a server", "server")
    if recipe.generate.get("engine") == "vllm" and not find_spec("vllm"):
        raise ConfigError(
            "generate: engine=vllm needs vLLM, which is not installed here: pip install vllm "
            "(Linux with a GPU), or leave engine out."
        )
