"""What all trainings share: a policy opened, its weights to train, and a run that goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.errors import ConfigError, EngineError, Interrupted
from drsow_plugin.models.adapters import put_on
from drsow_plugin.models.converted import loads_fast
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.models.weights import Weights, resolve_device
from drsow_plugin.records import Batching, Scoring
from drsow_plugin.tuning.folder import CHECKPOINTS
from drsow_plugin.tuning.options import NAME


def open_policy(policy: ModelConfig) -> LanguageModel:
    """Open a policy that is to be trained; no weights are loaded.

    Raises:
        ConfigError: It is not there, or has no chat template.
    """
    model = LanguageModel.from_config(
        NAME, policy, ModelPool(), Scoring(overflow="skip"), Batching()
    )
    if model.identity.template is None:
        raise ConfigError(
            f"policy={policy.source!r} has no chat template, which TRL writes turns by. "
            "Give one with template=FILE."
        )
    return model


def load_policy(model: LanguageModel) -> tuple[Any, Any]:
    """Return a policy's weights, its adapter merged, and its tokenizer with what trainers need.

    Raises:
        ConfigError: They cannot be loaded, or there is no token to pad with.
    """
    config = replace(model.config, dtype=model.config.dtype or "float32")
    network = Weights(NAME, config, model.identity.source).model
    if config.adapter is not None:
        network = put_on(network, None, NAME, model.identity.pinned_config).merge_and_unload()
    tokenizer: Any = model.tokenizer
    tokenizer.chat_template = model.identity.template
    pad = tokenizer.pad_token_id
    if pad is None or pad >= model.identity.vocab_size:
        tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise ConfigError(
                f"policy={config.source!r} has neither a token to pad with nor one that ends a "
                "text, and rows cannot be trained on together. Give tokenizer=… with one."
            )
    return network, tokenizer


def shared_arguments(folder: Path, policy: ModelConfig, checkpoint_steps: int) -> dict[str, Any]:
    """Return what the arguments of every trainer are told."""
    is_cpu = resolve_device(NAME, policy).type == "cpu"
    return {
        "output_dir": str(folder / CHECKPOINTS),
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "gradient_checkpointing": not is_cpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # with it a loss that is no number is logged as one
        "save_strategy": "steps",
        "save_steps": checkpoint_steps,
        "save_total_limit": 1,
        "bf16": False,
        "use_cpu": is_cpu,
        "report_to": "none",
    }


def reference_arguments(model: LanguageModel) -> dict[str, Any]:
    """Return what trainers are told that load a policy a second time, as a reference.

    Raises:
        ConfigError: It is of a GGUF file that is too large to keep a converted copy of.
    """
    source = loads_fast(NAME, model.config, model.identity.source, "model")
    if source.gguf_file is not None:
        raise ConfigError(
            f"policy={model.config.source!r} is a GGUF file that cannot be kept converted, so TRL "
            "cannot load it again as a reference. Give lora_rank=…, which needs none."
        )
    return {"model_init_kwargs": {"revision": source.commit}} if source.commit else {}


def lora(rank: int, **more: Any) -> Mapping[str, Any]:
    """Return what a trainer is told of a LoRA adapter; nothing for rank 0."""
    if not rank:
        return {}
    from peft import LoraConfig

    return {
        "peft_config": LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", **more)
    }


def run(trainer: Any, folder: Path) -> Any:
    """Train, from the last whole checkpoint where there is one, and return TRL's account of it.

    Raises:
        EngineError: The loss is not a number.
        Interrupted: Somebody ended it.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, control
            loss = state.log_history[-1].get("loss")
            if loss is not None and loss - loss != 0:
                raise EngineError(
                    f"The training loss of step {state.global_step} is {loss}. Give "
                    "dtype=float32, or a lower learning_rate, in a new folder."
                )

    trainer.add_callback(Watch())
    try:
        trainer.train(resume_from_checkpoint=_last_whole(folder / CHECKPOINTS))
    except KeyboardInterrupt:
        kept = _last_whole(folder / CHECKPOINTS)
        raise Interrupted(
            f"{Path(kept).name} is kept, and the same command goes on from there"
            if kept
            else "there was no checkpoint yet, so the same command begins again"
        ) from None
    return trainer.state


def last_loss(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean loss of the last tenth of the steps."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail) if tail else None


def _last_whole(folder: Path) -> str | None:
    """Return the last checkpoint that was written to its end; others are removed."""
    whole: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            whole[state["global_step"]] = path  # which is written last
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(path, ignore_errors=True)
    return str(whole[max(whole)]) if whole else None
