"""Each method's trainer of TRL, and how it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.reward_start import with_reward_head
from drsow_plugin.tuning.options import NAME, Setup, TuneConfig
from drsow_plugin.tuning.pairs import Pairs
from drsow_plugin.tuning.training import load_policy, lora, reference_arguments, shared_arguments


def open_trainer(model: LanguageModel, pairs: Pairs, folder: Path, setup: Setup) -> Any:
    """Load a policy's weights, and return the trainer of its method.

    Raises:
        ConfigError: They cannot be loaded, or cannot become a reward model.
    """
    config = setup.tune
    network, tokenizer = load_policy(model)
    adapter = lora(config.lora_rank)
    if config.method == "reward":
        network = with_reward_head(
            f"{NAME}={setup.policy.source!r}",
            network,
            pad_token_id=tokenizer.pad_token_id,
            seed=config.seed,
            trust_remote_code=setup.policy.trust_remote_code,
        )
        body = network.base_model_prefix
        heads = [name for name, _ in network.named_children() if name != body]
        adapter = lora(config.lora_rank, task_type="SEQ_CLS", modules_to_save=heads)
    trainer, arguments = trainer_of(config)
    return trainer(
        model=network,
        args=arguments(**_arguments(config), **_shared(model, folder, setup)),
        train_dataset=_rows(pairs, config),
        processing_class=tokenizer,
        **adapter,
    )


def save(trainer: Any, folder: Path, config: TuneConfig) -> None:
    """Write what was trained: the model, or an adapter that is not merged into it."""
    trained = trainer.model
    if config.lora_rank and (config.merge or config.method == "reward"):
        trained = trained.merge_and_unload()
    trained.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)


def trainer_of(config: TuneConfig) -> tuple[Any, Any]:
    """Return the trainer of a method, and its arguments' class."""
    if config.method == "dpo":
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        return DPOTrainer, DPOConfig
    if config.method == "kto":
        from trl.trainer.kto_config import KTOConfig
        from trl.trainer.kto_trainer import KTOTrainer

        return KTOTrainer, KTOConfig
    if config.method == "reward":
        from trl.trainer.reward_config import RewardConfig
        from trl.trainer.reward_trainer import RewardTrainer

        return RewardTrainer, RewardConfig
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    return CPOTrainer, CPOConfig


def _rows(pairs: Pairs, config: TuneConfig) -> datasets.Dataset:
    """Return what is trained on; for KTO, which reads rows in order, each response by itself."""
    if config.method != "kto":
        return pairs.rows
    from trl.data_utils import unpair_preference_dataset

    alone: datasets.Dataset = unpair_preference_dataset(pairs.rows)
    return alone.shuffle(seed=config.seed)


def _shared(model: LanguageModel, folder: Path, setup: Setup) -> dict[str, Any]:
    needs_reference = setup.tune.method in ("dpo", "kto") and not setup.tune.lora_rank
    return {
        **shared_arguments(folder, setup.policy, setup.tune.checkpoint_steps),
        **(reference_arguments(model) if needs_reference else {}),
    }


def _arguments(config: TuneConfig) -> dict[str, Any]:
    own: dict[str, Any] = {"beta": config.strength}
    if config.method == "reward":
        own = {}
    elif config.method == "simpo":
        # TRL subtracts gamma / beta from the difference of mean log-probs, and multiplies by beta.
        own |= {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": config.gamma}
    return own | {
        "learning_rate": config.rate,
        "num_train_epochs": config.epochs,
        # KTO takes a pair as two rows, and its estimate of the divergence needs two in memory.
        "per_device_train_batch_size": config.batch_rows * (2 if config.method == "kto" else 1),
        "gradient_accumulation_steps": config.batch_pairs // config.batch_rows,
        "max_length": config.max_length,
        "seed": config.seed,
    }
