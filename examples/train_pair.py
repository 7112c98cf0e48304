"""Train an adapter for the demo pair: the model is to prefer what people preferred.

Usage: python examples/train_pair.py OUTPUT_FOLDER helpful.jsonl.gz harmless.jsonl.gz
           [--loss pair|apo-zero|sft-chosen|sft-rejected] [--weak plain|start] [--start ADAPTER]

The adapter is LoRA on the demo model with its chat template. Over pairs (x, y+, y-), with
reward(x, y) = log p_adapted(y | x) - log p_weak(y | x), the losses are

    pair          -log sigmoid(beta * (reward(x, y+) - reward(x, y-)))
    apo-zero      1 - sigmoid(beta * reward(x, y+)) + sigmoid(beta * reward(x, y-))
    sft-chosen    -log p_adapted(y+ | x), by token
    sft-rejected  -log p_adapted(y- | x), by token

The first is the reward's own logistic loss, which is DPO's (arXiv 2305.18290, equation 7) with
the weak side as the reference model; the second is APO-zero (arXiv 2408.06266). Adapters of the
last two are the strong and the weak side of one pair. The weak side of the first two is the demo
model as a plain language model, or the model that training starts from.

To fit a CPU, only the upper layers are trained, so that all layers below them are computed once,
matrices of training are multiplied in bfloat16, and the softmax runs over the tokens that occur
in the responses.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pair_network import GROUP, Network, grouped, rounding
from pair_rows import Limits, Row, Tokens, read_rows
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn import functional
from tqdm import tqdm

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
LOSSES = ("pair", "apo-zero", "sft-chosen", "sft-rejected")


@dataclass(frozen=True)
class Settings(Limits):
    """What decides the adapter, beside the rows.

    Attributes:
        loss: One of ``LOSSES``.
        weak: ``plain`` (the demo model without template) or ``start`` (what training starts from).
        first_layer: The first layer that is trained; those below are computed once.
        projections: The matrices of a layer that have an adapter.
        rank: Of the LoRA matrices; their scale is ``alpha / rank``.
        beta: Of the loss, per nat.
        groups: In a step, each of eight rows.
        rounded: Multiply matrices in bfloat16, which is 2.7 times as fast where the processor has
            it, and moves margins by 0.1 to 0.3 nats.
    """

    loss: str = "pair"
    weak: str = "plain"
    first_layer: int = 16
    projections: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "down_proj")
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    beta: float = 0.1
    learning_rate: float = 5e-4
    groups: int = 2
    epochs: int = 1
    seed: int = 0
    rounded: bool = True


@dataclass
class Example:
    """What training needs of a row.

    Attributes:
        row: The row.
        hidden: Input of the first trained layer, (tokens, width). In float16 margins are off
            by 0.4 nats on average.
        weak: Weak side's log p(chosen) and log p(rejected), in nats, (2,); empty where no loss
            needs them.
    """

    row: Row
    hidden: torch.Tensor
    weak: torch.Tensor

    @property
    def strong(self) -> Tokens:
        """The row as the strong side reads it."""
        return self.row.strong


@torch.inference_mode()
def prepare(network: Network, rows: Sequence[Row], settings: Settings) -> list[Example]:
    """Compute once what no step of training changes."""
    examples = []
    for group in tqdm(grouped(rows), "layers that are not trained"):
        below = network.below([row.strong for row in group], settings.first_layer)
        weak = torch.empty(len(group), 0)
        if settings.loss in ("pair", "apo-zero") and settings.weak == "plain":
            tokens = [row.weak for row in group]
            weak = network.above(network.below(tokens, 0), tokens, 0)
        examples += [Example(*of_row) for of_row in zip(group, below, weak, strict=True)]
    return examples


@torch.inference_mode()
def compare_with_start(network: Network, examples: Sequence[Example], settings: Settings) -> None:
    """Make the model as it is the weak side of the examples."""
    for group in tqdm(grouped(examples), "weak side"):
        for example, weak in zip(group, strong_logprobs(network, group, settings), strict=True):
            example.weak = weak


def strong_logprobs(network: Network, group: Sequence[Example], settings: Settings) -> torch.Tensor:
    """Return log p(chosen) and log p(rejected) of the model as it is, in nats, (rows, 2)."""
    hidden, rows = [e.hidden for e in group], [e.strong for e in group]
    return network.above(hidden, rows, settings.first_layer)


def rewards(network: Network, group: Sequence[Example], settings: Settings) -> torch.Tensor:
    """Return reward(chosen) and reward(rejected) in nats, (rows, 2)."""
    return strong_logprobs(network, group, settings) - torch.stack([e.weak for e in group])


def alone(example: Example, loss: str) -> tuple[torch.Tensor, Tokens]:
    """Return hidden states and tokens of a row with only the response that the loss reads."""
    tokens, hidden = example.strong, example.hidden
    prompt, second = len(tokens.prompt), len(tokens.prompt) + len(tokens.chosen)
    if loss == "sft-chosen":
        return hidden[:second], Tokens(tokens.prompt, tokens.chosen, ())
    return torch.cat([hidden[:prompt], hidden[second:]]), Tokens(tokens.prompt, (), tokens.rejected)


def losses(network: Network, group: Sequence[Example], settings: Settings) -> torch.Tensor:
    """Return the loss of each row, (rows,), for SFT in nats a token."""
    if settings.loss.startswith("sft-"):
        rows = [alone(example, settings.loss) for example in group]
        tokens = [of_row for _, of_row in rows]
        found = network.above([hidden for hidden, _ in rows], tokens, settings.first_layer)
        counts = torch.tensor([len(row.chosen) + len(row.rejected) for row in tokens])
        return -found.sum(-1) / counts
    scaled = settings.beta * rewards(network, group, settings)
    if settings.loss == "pair":
        return -functional.logsigmoid(scaled[:, 0] - scaled[:, 1])
    return 1 - torch.sigmoid(scaled[:, 0]) + torch.sigmoid(scaled[:, 1])


def train(
    network: Network, adapted: Any, examples: Sequence[Example], settings: Settings, output: Path
) -> None:
    """Fit the adapter; after each epoch save it, and tell how it does on the part ``tune``."""
    tune = [example for example in examples if example.row.part == "tune"]
    fitted = [example for example in examples if example.row.part == "train"]
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, settings.learning_rate, (0.9, 0.98), weight_decay=0)
    of_epoch = math.ceil(math.ceil(len(fitted) / GROUP) / settings.groups)
    steps = settings.epochs * of_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    report(network, adapted, tune, settings, "before training")
    for epoch in range(settings.epochs):
        adapted.train()
        groups = grouped(fitted)
        for start in tqdm(range(0, len(groups), settings.groups), f"epoch {epoch + 1}"):
            step = groups[start : start + settings.groups]
            for group in step:
                of_rows = losses(network, group, settings)
                (of_rows.sum() / sum(map(len, step))).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        report(network, adapted, tune, settings, f"after epoch {epoch + 1}")
        save(adapted, output)


def rate(step: int, steps: int) -> float:
    """Return the learning rate of a step, as a part of the highest: a short rise, then a cosine."""
    return min((step + 1) / max(1, steps // 20), 0.5 + 0.5 * math.cos(math.pi * step / steps))


def save(adapted: Any, output: Path) -> None:
    """Save the adapter in PEFT's format, in float16."""
    adapted.peft_config["default"].base_model_name_or_path = BASE  # not this machine's path
    adapted.save_pretrained(output, save_embedding_layers=False)
    file = output / "adapter_model.safetensors"
    halved = {name: tensor.half() for name, tensor in load_file(file).items()}
    save_file(halved, file, metadata={"format": "pt"})


@torch.inference_mode()
def report(
    network: Network, adapted: Any, tune: Sequence[Example], settings: Settings, when: str
) -> None:
    """Print each file's mean loss, and of a pair its accuracy with the standard error."""
    adapted.eval()
    for source in sorted({example.row.source for example in tune}):
        own = [example for example in tune if example.row.source == source]
        groups = grouped(own)
        loss = float(torch.cat([losses(network, group, settings) for group in groups]).mean())
        line = f"{when}: {source}, {len(own)} rows, loss {loss:.4f}"
        if not settings.loss.startswith("sft-"):
            found = torch.cat([rewards(network, group, settings) for group in groups])
            right = float((found[:, 0] > found[:, 1]).float().mean())
            line += f", right {right:.3f} +- {math.sqrt(right * (1 - right) / len(own)):.3f}"
        print(line)


def prepared(network: Network, rows: Sequence[Row], settings: Settings, file: Path) -> Any:
    """Return the examples, which are kept in a file for the next run with the same rows."""
    needed = settings.weak if settings.loss in ("pair", "apo-zero") else ""
    key = (rows, settings.first_layer, needed, settings.rounded)
    if file.is_file():
        kept = torch.load(file, weights_only=False)  # which this function wrote
        if kept["key"] == key:
            return kept["examples"]
    examples = prepare(network, rows, settings)
    torch.save({"key": key, "examples": examples}, file)
    return examples


def adapter_on(network: Network, settings: Settings, start: Path | None) -> Any:
    """Put an adapter into the upper layers: a new one, or that of a folder, to be trained on."""
    if start is not None:
        return PeftModel.from_pretrained(network.model, start, is_trainable=True)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.projections),
        layers_to_transform=list(range(settings.first_layer, len(network.layers))),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(network.model, config)


def main(arguments: Sequence[str] | None = None, settings: Settings | None = None) -> None:
    """Train the adapter and save it."""
    settings = settings or Settings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("pairs", type=Path, nargs="+", help=".jsonl.gz: prompt, chosen, rejected")
    parser.add_argument("--loss", choices=LOSSES, default=settings.loss)
    parser.add_argument("--weak", choices=("plain", "start"), default=settings.weak)
    parser.add_argument("--start", type=Path, help="an adapter to train on")
    options = parser.parse_args(arguments)
    settings = replace(settings, loss=options.loss, weak=options.weak)
    random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    options.output.mkdir(parents=True, exist_ok=True)
    rows = read_rows(options.pairs, settings)
    network = Network(rows)
    with rounding(settings.rounded):
        examples = prepared(network, rows, settings, options.output / "prepared.pt")
        adapted = adapter_on(network, settings, options.start)
        if settings.weak == "start" and not settings.loss.startswith("sft-"):
            compare_with_start(network, examples, settings)
        train(network, adapted, examples, settings, options.output)


if __name__ == "__main__":
    main()
