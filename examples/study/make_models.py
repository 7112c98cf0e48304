"""Makes ten models of one checkpoint: noised and rounded weights, and adapters along three runs.

    python examples/study/make_models.py --data train.jsonl --output models

Beside the checkpoint itself, with and without its template, these are what ten_models.yaml names:

- noised: each weight matrix plus Gaussian noise of 10 % of its standard deviation;
- rounded: each row of each weight matrix rounded to 4 bits (absmax, symmetric);
- sft-half, sft: LoRA fitted on the chosen responses, in the middle and at the end of the run;
- worse-half, worse: LoRA fitted on the rejected responses with their words in random order;
- dpo-half, dpo: LoRA by DPO (Rafailov et al. 2023) from the checkpoint on.

The pairs are rows of prompt, chosen and rejected; use none that the study is to be run on. What is
fitted are the very tokens that are scored. Pairs that are not drawn for a run measure it: runs.csv
says what it did to log-probs. What is there already is not made again. Takes the extra peft, 1.1 GB
of disk and, on two cores, a few minutes a run.
"""

from __future__ import annotations

import argparse
import copy
import csv
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from drsow_plugin import LanguageModel, TokenPair
from drsow_plugin.config.model import ModelConfig
from drsow_plugin.data.loading import load_data
from drsow_plugin.models.row import ModelRow
from drsow_plugin.models.sources import locate
from drsow_plugin.progress import tell
from drsow_plugin.prompts import as_preference

NOISE = 0.1
BITS = 4
BETA = 0.1
HELD = 16


@dataclass(frozen=True)
class Pair:
    """A preference pair as the tokens that are scored, and the rejected response disordered."""

    chosen: TokenPair
    rejected: TokenPair
    disordered: TokenPair


Loss = Callable[[Any, Sequence[Pair]], torch.Tensor]


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="demo", help="a folder or a .gguf file [demo]")
    parser.add_argument("--data", required=True, help="preference pairs to fit to")
    parser.add_argument("--output", required=True, type=Path, help="folder for the models")
    parser.add_argument("--pairs", type=int, default=128, help="pairs of each run [128]")
    parser.add_argument("--batch", type=int, default=4, help="pairs of a step [4]")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate [1e-3]")
    parser.add_argument("--max-length", type=int, default=96, help="of rows, in tokens [96]")
    options = parser.parse_args()
    base, tokenizer = read_base(options.base)
    changes: dict[str, Callable[[Any], Any]] = {"noised": with_noise, "rounded": rounded}
    for name, change in changes.items():
        if not (options.output / name).exists():
            changed = change(copy.deepcopy(base))
            tokenizer.save_pretrained(options.output / name)
            changed.save_pretrained(options.output / name)
            tell(f"{name}: written")
    drawn = read_pairs(options.base, options.data, options.max_length)
    random.Random(0).shuffle(drawn)
    held, pairs = drawn[:HELD], drawn[HELD : HELD + options.pairs]
    losses: dict[str, Loss] = {"sft": chosen_loss, "worse": disordered_loss, "dpo": dpo_loss}
    for name, loss in losses.items():
        if not (options.output / name).exists():
            fit(base, name, loss, pairs, held, options)


def read_base(name: str) -> tuple[Any, Any]:
    """Return a model in float32, as one that can be written, and its tokenizer."""
    source = locate("model", ModelConfig(name))
    file = {"gguf_file": source.gguf_file} if source.gguf_file else {}
    tokenizer = AutoTokenizer.from_pretrained(source.name, **file)
    model = AutoModelForCausalLM.from_pretrained(source.name, dtype=torch.float32, **file)
    if not file:
        return model, tokenizer
    config = model.config
    del config.quantization_config  # of the file; what was loaded is not quantized
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    return plain.eval(), tokenizer


@torch.no_grad()
def with_noise(model: Any, scale: float = NOISE) -> Any:
    """Add noise to each weight matrix, of a share of its standard deviation."""
    generator = torch.Generator().manual_seed(0)
    for weight in matrices(model):
        weight += torch.randn(weight.shape, generator=generator) * (scale * weight.std())
    return model


@torch.no_grad()
def rounded(model: Any, bits: int = BITS) -> Any:
    """Round each row of each weight matrix to so many bits."""
    levels = 2 ** (bits - 1) - 1
    for weight in matrices(model):
        step = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / levels
        weight.copy_((weight / step).round() * step)
    return model


def matrices(model: Any) -> Iterator[torch.Tensor]:
    """Yield the weights of linear layers; embeddings stay as they are."""
    tied = {id(model.get_input_embeddings().weight)}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and id(module.weight) not in tied:
            yield module.weight


def read_pairs(base: str, data: str, max_length: int) -> list[Pair]:
    """Return the pairs as the tokens that are scored, without those that are too long."""
    model = LanguageModel(base, overflow="skip", max_length=max_length)
    order = random.Random(0)
    pairs = []
    for number, row in enumerate(load_data([data])):
        read = as_preference(row, f"row {number}")
        words = read.rejected.split()
        order.shuffle(words)
        texts = (read.chosen, read.rejected, " ".join(words))
        rows = [ModelRow(read.prompt, text, "") for text in texts]
        tokens = [t for t in model.tokenize(rows) if isinstance(t, TokenPair) and not t.problem]
        if len(tokens) == len(rows):
            pairs.append(Pair(*tokens))
    return pairs


def fit(
    base: Any,
    name: str,
    loss: Loss,
    pairs: Sequence[Pair],
    held: Sequence[Pair],
    options: argparse.Namespace,
) -> None:
    """Fit an adapter and write it, in the middle of the run and at its end."""
    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(copy.deepcopy(base), config)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=options.rate
    )
    steps = [pairs[i : i + options.batch] for i in range(0, len(pairs), options.batch)]
    if not (options.output / "runs.csv").exists():
        log(options.output, "checkpoint", 0, model, held)
    for number, step in enumerate(steps, 1):
        value = loss(model, step)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tell(f"{name}: step {number} of {len(steps)}, loss {value.item():.3f}")
        if number == len(steps) // 2:
            model.save_pretrained(options.output / f"{name}-half")
            log(options.output, name, number, model, held)
    log(options.output, name, len(steps), model, held)
    model.save_pretrained(options.output / name)


@torch.no_grad()
def log(folder: Path, name: str, step: int, model: Any, held: Sequence[Pair]) -> None:
    """Add a line to runs.csv: log-probs a token, in nats, of pairs that are not fitted to."""
    totals, means = {}, {}
    for part in ("chosen", "rejected", "disordered"):
        texts = [getattr(pair, part) for pair in held]
        totals[part] = float(logprobs(model, texts).sum())
        means[part] = totals[part] / sum(len(text.response_ids) for text in texts)
    margin = (totals["chosen"] - totals["rejected"]) / len(held)
    line = {"run": name, "step": step, **means, "margin": margin}
    with (folder / "runs.csv").open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(line))
        if not file.tell():
            writer.writeheader()
        writer.writerow(line)
    tell(", ".join(f"{key} {value}" for key, value in line.items()))


def logprobs(model: Any, pairs: Sequence[TokenPair]) -> torch.Tensor:
    """Return the log-prob of each response, in nats, (pairs,); rows are padded at their end."""
    size = max(map(len, pairs))
    ids = torch.zeros(len(pairs), size, dtype=torch.long)
    scored = torch.zeros(len(pairs), size)
    for row, pair in enumerate(pairs):
        ids[row, : len(pair)] = torch.tensor([*pair.prompt_ids, *pair.response_ids])
        scored[row, len(pair.prompt_ids) : len(pair)] = 1
    found = torch.log_softmax(model(input_ids=ids).logits[:, :-1].float(), dim=-1)
    return (found.gather(2, ids[:, 1:, None])[..., 0] * scored[:, 1:]).sum(dim=1)


def mean_loss(model: Any, texts: Sequence[TokenPair]) -> torch.Tensor:
    """Return the negative log-prob, a token, averaged over responses."""
    lengths = torch.tensor([float(len(text.response_ids)) for text in texts])
    return -(logprobs(model, texts) / lengths).mean()


def chosen_loss(model: Any, pairs: Sequence[Pair]) -> torch.Tensor:
    """Return the loss of SFT on the chosen responses."""
    return mean_loss(model, [pair.chosen for pair in pairs])


def disordered_loss(model: Any, pairs: Sequence[Pair]) -> torch.Tensor:
    """Return the loss of SFT on the rejected responses with their words in random order."""
    return mean_loss(model, [pair.disordered for pair in pairs])


def dpo_loss(model: Any, pairs: Sequence[Pair]) -> torch.Tensor:
    """Return the loss of DPO, with the checkpoint itself as reference."""
    texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    with torch.no_grad(), model.disable_adapter():
        reference = logprobs(model, texts)
    ahead = (logprobs(model, texts) - reference).reshape(-1, 2)
    return -torch.nn.functional.logsigmoid(BETA * (ahead[:, 0] - ahead[:, 1])).mean()


if __name__ == "__main__":
    main()
