"""Trains a policy on rewards of its own responses, with TRL's GRPOTrainer."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets

from drsow_plugin.cache import storage_errors
from drsow_plugin.data.prompts import check_prompts, read_prompts
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.row import ModelRow
from drsow_plugin.printable import printable
from drsow_plugin.prompts import is_prefill
from drsow_plugin.redaction import without_tokens
from drsow_plugin.scoring.drsow import DrSoW
from drsow_plugin.scoring.reward_function import RewardFunction
from drsow_plugin.tuning.folder import CHECKPOINTS, RECORD, check_folder, require_trl
from drsow_plugin.tuning.online_options import OnlineConfig, OnlineSetup
from drsow_plugin.tuning.pairs import TOO_LONG, UNREADABLE
from drsow_plugin.tuning.training import (
    load_policy,
    lora,
    open_policy,
    reference_arguments,
    run,
    shared_arguments,
)

BEGUN = "with a begun answer"
_REWARD, _CUT, _UNSCORED = "reward", "completions/clipped_ratio", "drsow_reward/unscored"


@dataclass(frozen=True)
class Trained:
    """What was trained.

    Attributes:
        folder: Where it is: a model, or an adapter of the policy.
        prompts: How many prompts it was trained on.
        steps: How many steps that were.
        left_out: Prompts that were not taken, by reason.
        reward_begin: Mean reward of the responses of the first tenth of the steps, in nats.
        reward_end: The same of the last tenth.
        cut: Share of the responses that were cut at ``max_tokens``.
        unscored: Share of the responses that have no reward.
        options: The options in force, but for defaults.
    """

    folder: str
    prompts: int
    steps: int
    left_out: dict[str, int]
    reward_begin: float | None
    reward_end: float | None
    cut: float | None
    unscored: float | None
    options: dict[str, Any]

    def __str__(self) -> str:
        parts = [f"{self.prompts:,} prompts, {self.steps:,} steps"]
        if self.reward_begin is not None and self.reward_end is not None:
            parts.append(
                f"mean reward {self.reward_begin:.2f} nats in the first tenth of them, "
                f"{self.reward_end:.2f} in the last"
            )
        parts += [f"{share:.0%} {n}" for n, share in self._shares() if share]
        if self.left_out:
            counts = sorted(self.left_out.items())
            parts.append("left out: " + ", ".join(f"{count:,} {why}" for why, count in counts))
        return printable("; ".join(parts), lines=True)

    def _shares(self) -> Sequence[tuple[str, float | None]]:
        return (
            ("of the responses were cut at max_tokens", self.cut),
            ("of the responses have no reward", self.unscored),
        )


def train_online(data: datasets.Dataset, folder: Path, setup: OnlineSetup) -> Trained:
    """Train a policy to give responses that a pair of models rewards.

    Args:
        data: Has a column of prompts, each there once.
        folder: A new or empty folder, or one where this training was interrupted: it goes on from
            its last checkpoint.
        setup: The policy, the pair, and how the policy is trained.

    Raises:
        ConfigError: A model cannot be used so, or the folder holds something else.
        DataError: There are no prompts, too few, or they repeat.
        EngineError: A model fails, or the loss is not a number.
        MissingExtraError: TRL or PEFT is not installed.
        StorageError: There is no room.
    """
    require_trl()
    config = setup.online
    check_prompts(data, config.prompt_column, "The data")
    model = open_policy(setup.policy)
    prompts, left_out = _taken(data, model, config)
    digest = text_sha256(json.dumps(prompts, ensure_ascii=True))
    begun = {"options": without_tokens(setup.options()), "prompts_sha256": digest}
    check_folder(folder, begun)
    reward = DrSoW.from_config(setup.pair).as_reward_function()
    with storage_errors(f"{folder} cannot be written", "Make room, and run again."):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).write_text(json.dumps({"begun": begun}, indent=1), encoding="utf-8")
        trainer = _open_trainer(model, prompts, reward, folder, setup)
        state = run(trainer, folder)
        trainer.model.save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
        logged = state.log_history
        tenth = max(1, state.global_step // 10)
        trained = Trained(
            folder=str(folder),
            prompts=len(prompts),
            steps=state.global_step,
            left_out=dict(left_out),
            reward_begin=_mean(logged[:tenth], _REWARD),
            reward_end=_mean(logged[: state.global_step][-tenth:], _REWARD),
            cut=_mean(logged, _CUT),
            unscored=_mean(logged, _UNSCORED),
            options=setup.options(),
        )
        record = {"begun": begun, "done": without_tokens(asdict(trained))}
        (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return trained


def _taken(
    data: datasets.Dataset, model: LanguageModel, config: OnlineConfig
) -> tuple[list[list[dict[str, str]]], Counter[str]]:
    """Return the prompts that the policy can read and answer, and why others are left out.

    Raises:
        ConfigError: The policy reads no more than a response may have.
        DataError: There are too few.
    """
    limit = model.identity.max_length
    if limit is not None and config.max_tokens >= limit:
        raise ConfigError(
            f"max_tokens={config.max_tokens} leaves no room for a prompt: the policy reads "
            f"{limit} tokens. Give less."
        )
    left_out: Counter[str] = Counter()
    prompts: list[list[dict[str, str]]] = []
    for asked in read_prompts(data, config.prompt_column):
        if is_prefill(asked.messages):
            left_out[BEGUN] += 1  # TRL opens a turn of its own behind it
            continue
        texts = [message.get("content") for message in asked.messages]
        if asked.problem is not None or not all(isinstance(text, str) for text in texts):
            left_out[UNREADABLE] += 1
            continue
        (pair,) = model.tokenize([ModelRow(asked.messages, "", asked.where)])
        if isinstance(pair, DataError):
            left_out[UNREADABLE] += 1
        elif limit is not None and len(pair.prompt_ids) + config.max_tokens > limit:
            left_out[TOO_LONG] += 1
        else:
            turns = zip(asked.messages, texts, strict=True)
            prompts.append([{"role": str(m["role"]), "content": str(text)} for m, text in turns])
    if len(prompts) < config.batch_prompts:
        told = ", ".join(f"{count} {why}" for why, count in sorted(left_out.items()))
        raise DataError(
            f"{len(prompts)} prompts can be trained on ({told or 'none was left out'}), fewer than "
            f"batch_prompts={config.batch_prompts}. Give more prompts, or lower batch_prompts."
        )
    return prompts, left_out


def _open_trainer(
    model: LanguageModel,
    prompts: Sequence[Any],
    reward: RewardFunction,
    folder: Path,
    setup: OnlineSetup,
) -> Any:
    """Load the policy's weights, and return TRL's trainer.

    Raises:
        ConfigError: They cannot be loaded, or nothing ends a response.
    """
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    config = setup.online
    network, tokenizer = load_policy(model)
    _set_ends(model, network, tokenizer)
    needs_reference = config.beta > 0 and not config.lora_rank
    arguments = GRPOConfig(
        **shared_arguments(folder, setup.policy, config.checkpoint_steps),
        **(reference_arguments(model) if needs_reference else {}),
        learning_rate=config.rate,
        beta=config.beta,
        num_generations=config.candidates,
        max_completion_length=config.max_tokens,
        temperature=config.temperature,
        per_device_train_batch_size=config.rows,
        gradient_accumulation_steps=config.batch_prompts * config.candidates // config.rows,
        num_train_epochs=1,
        shuffle_dataset=False,
        seed=config.seed,
    )
    return GRPOTrainer(
        model=network,
        reward_funcs=reward,
        args=arguments,
        train_dataset=_in_order(prompts, config),
        processing_class=tokenizer,
        **lora(config.lora_rank),
    )


def _in_order(prompts: Sequence[Any], config: OnlineConfig) -> datasets.Dataset:
    """Return the prompts of all steps, in order; one pass over all after the other.

    The order is made here: that of TRL's sampler is another one after a run goes on in a later
    epoch.
    """
    wanted = config.steps_over(len(prompts)) * config.batch_prompts
    drawn = random.Random(config.seed)
    order: list[int] = []
    while len(order) < wanted:
        order += drawn.sample(range(len(prompts)), len(prompts))
    return datasets.Dataset.from_list([{"prompt": p} for p in prompts]).select(order[:wanted])


def _set_ends(model: LanguageModel, network: Any, tokenizer: Any) -> None:
    """Let responses end where the policy's template ends a turn, as drsow generate does.

    Raises:
        ConfigError: No single token ends a response.
    """
    told = getattr(network.generation_config, "eos_token_id", None)
    ends = {*(told if isinstance(told, list) else [told]), tokenizer.eos_token_id} - {None}
    turn = model.identity.end_of_turn_ids
    if len(turn) == 1:
        ends |= {*turn}
    if not ends:
        raise ConfigError(
            f"policy={model.config.source!r}: no token ends a response. Give tokenizer=… with one."
        )
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(min(ends))
    network.generation_config.eos_token_id = sorted(ends)


def _mean(logged: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Return the mean of what was logged by a name, over the steps that have it as a number."""
    values = [entry[name] for entry in logged if name in entry and entry[name] == entry[name]]
    return sum(values) / len(values) if values else None
