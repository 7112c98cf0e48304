"""Trains on pairs with TRL, and writes a policy, an adapter of one, or a reward model."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets

from drsow_plugin.cache import storage_errors
from drsow_plugin.printable import printable
from drsow_plugin.redaction import without_tokens
from drsow_plugin.tuning.folder import CHECKPOINTS, RECORD, check_folder, require_trl
from drsow_plugin.tuning.methods import open_trainer, save
from drsow_plugin.tuning.options import Setup
from drsow_plugin.tuning.pairs import pairs_sha256, read_pairs
from drsow_plugin.tuning.training import last_loss, open_policy, run


@dataclass(frozen=True)
class Tuned:
    """What was trained.

    Attributes:
        folder: Where it is: a model, an adapter of the policy, or a reward model.
        pairs: How many pairs it was trained on.
        steps: How many steps that were.
        left_out: Pairs that were not taken, by reason.
        chosen_longer: Share of pairs whose better response is the longer one.
        loss: Mean loss of the last tenth of the steps.
        options: The options in force, but for defaults.
    """

    folder: str
    pairs: int
    steps: int
    left_out: dict[str, int]
    chosen_longer: float | None
    loss: float | None
    options: dict[str, Any]

    def __str__(self) -> str:
        left = ", ".join(f"{count:,} {why}" for why, count in sorted(self.left_out.items()))
        text = f"{self.pairs:,} pairs in {self.steps:,} steps"
        return printable(text + (f"; left out: {left}" if left else ""), lines=True)


def tune(data: datasets.Dataset, folder: Path, setup: Setup) -> Tuned:
    """Train a policy, or a reward model that begins as one, on labelled pairs.

    Args:
        data: Labelled pairs.
        folder: A new or empty folder, or one where this training was interrupted: it goes on from
            its last checkpoint.
        setup: The policy and how it is tuned.

    Raises:
        ConfigError: The model cannot be trained so, or the folder holds something else.
        DataError: There are too few pairs.
        EngineError: The loss is not a number.
        MissingExtraError: TRL or PEFT is not installed.
        StorageError: There is no room.
    """
    require_trl()
    begun = {"options": without_tokens(setup.options()), "pairs_sha256": pairs_sha256(data)}
    check_folder(folder, begun)
    model = open_policy(setup.policy)
    pairs = read_pairs(data, model, setup.tune)
    with storage_errors(f"{folder} cannot be written", "Make room, and run again."):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).write_text(json.dumps({"begun": begun}, indent=1), encoding="utf-8")
        trainer = open_trainer(model, pairs, folder, setup)
        state = run(trainer, folder)
        save(trainer, folder, setup.tune)
        tuned = Tuned(
            folder=str(folder),
            pairs=len(pairs.rows),
            steps=state.global_step,
            left_out=pairs.left_out,
            chosen_longer=pairs.longer,
            loss=last_loss(state.log_history),
            options=setup.options(),
        )
        record = {"begun": begun, "done": without_tokens(asdict(tuned))}
        (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return tuned
