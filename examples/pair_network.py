"""The demo model as the few steps between which ``train_pair.py`` needs what is computed.

Both responses of a pair share one pass over their prompt, layers that are not trained are
computed once, and training may round the inputs and weights of matrix products to bfloat16:
hidden states between them, norms and the softmax stay in float32.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pair_rows import Row, Tokens
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from drsow_plugin.models.demo import demo_model

GROUP = 8  # rows that are computed together


class Product(nn.Linear):
    """A matrix without bias, which multiplies in bfloat16 when ``rounded`` is set."""

    rounded = False  # of all of them

    def __init__(self, weight: torch.Tensor) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_parameter("bias", None)
        self.short = weight.bfloat16()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the product in float32."""
        if not Product.rounded:
            return functional.linear(states, self.weight)
        return functional.linear(states.bfloat16(), self.short).float()


@contextmanager
def rounding(on: bool) -> Iterator[None]:
    """Multiply in bfloat16, or not, for a while."""
    before, Product.rounded = Product.rounded, on
    try:
        yield
    finally:
        Product.rounded = before


class Network:
    """The demo model. Its head has the rows of tokens that occur in the responses, if given."""

    def __init__(self, rows: Sequence[Row] | None = None) -> None:
        path = demo_model()
        arguments = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
        self.model: Any = AutoModelForCausalLM.from_pretrained(**arguments, dtype=torch.float32)
        self.model.eval().requires_grad_(False)
        self.layers = self.model.model.layers  # kept: an adapter goes into them in place
        for layer in self.layers:
            for block in (layer.self_attn, layer.mlp):
                for name, module in list(block.named_children()):
                    if isinstance(module, nn.Linear):
                        setattr(block, name, Product(module.weight.data))
        self.tokens = torch.arange(self.model.config.vocab_size)
        if rows is not None:
            sides = [side for row in rows for side in (row.strong, row.weak)]
            used = {token for side in sides for token in (*side.chosen, *side.rejected)}
            self.tokens = torch.tensor(sorted(used))
        self.head = self.model.lm_head.weight[self.tokens].contiguous()

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the input of the first layer, (rows, tokens, width)."""
        return self.model.model.embed_tokens(ids)  # type: ignore[no-any-return]

    def run(self, hidden: torch.Tensor, packed: Packed, first: int, last: int) -> torch.Tensor:
        """Run the layers from ``first`` to before ``last``, (rows, tokens, width)."""
        rotary = self.model.model.rotary_emb(hidden, packed.positions)
        for layer in self.layers[first:last]:
            hidden = layer(
                hidden,
                attention_mask=packed.mask,
                position_ids=packed.positions,
                position_embeddings=rotary,
            )
        return hidden

    def logprobs(self, hidden: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Return log p(chosen) and log p(rejected) in nats, of what the last layer made, (2,).

        Args:
            hidden: Output of the last layer, (tokens, width).
            tokens: The row. An empty response has log-prob 0.
        """
        second = len(tokens.prompt) + len(tokens.chosen)
        last = len(tokens.prompt) - 1  # predicts the first token of either response
        before = [last, *range(last + 1, second - 1)][: len(tokens.chosen)]
        before += [last, *range(second, len(tokens) - 1)][: len(tokens.rejected)]
        logits = self.model.model.norm(hidden[before]) @ self.head.T
        targets = torch.searchsorted(self.tokens, torch.tensor(tokens.chosen + tokens.rejected))
        logprobs = -functional.cross_entropy(logits, targets, reduction="none")
        sizes = [len(tokens.chosen), len(tokens.rejected)]
        return torch.stack([part.sum() for part in logprobs.split(sizes)])

    def below(self, rows: Sequence[Tokens], layer: int) -> list[torch.Tensor]:
        """Return the input of a layer for each row, (tokens, width)."""
        packed = pack(rows)
        hidden = self.run(self.embed(packed.ids), packed, 0, layer)
        return [h[: len(row)].clone() for h, row in zip(hidden, rows, strict=True)]

    def above(
        self, below: Sequence[torch.Tensor], rows: Sequence[Tokens], layer: int
    ) -> torch.Tensor:
        """Return the log-probs in nats, of the inputs of a layer, (rows, 2)."""
        hidden = nn.utils.rnn.pad_sequence(list(below), batch_first=True)
        hidden = self.run(hidden, pack(rows), layer, len(self.layers))
        return torch.stack([self.logprobs(h, row) for h, row in zip(hidden, rows, strict=True)])


@dataclass(frozen=True)
class Packed:
    """Rows of tokens, padded at their end: (rows, tokens), and who sees whom."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor


def pack(rows: Sequence[Tokens]) -> Packed:
    """Pack each row as prompt, chosen, rejected; no response sees the other."""
    size = max(map(len, rows))
    ids = torch.zeros(len(rows), size, dtype=torch.long)
    positions = torch.arange(size).repeat(len(rows), 1)
    mask = torch.ones(size, size, dtype=torch.bool).tril().repeat(len(rows), 1, 1, 1)
    for n, row in enumerate(rows):
        first, second = len(row.prompt), len(row.prompt) + len(row.chosen)
        ids[n, : len(row)] = torch.tensor(row.prompt + row.chosen + row.rejected)
        positions[n, second:] -= len(row.chosen)
        mask[n, 0, second:, first:second] = False
    return Packed(ids, positions, mask)


def grouped(rows: Sequence[Any]) -> list[Sequence[Any]]:
    """Return groups of rows of about one length, in any order."""
    ordered = sorted(rows, key=lambda row: len(row.strong))
    groups: list[Sequence[Any]] = [
        ordered[start : start + GROUP] for start in range(0, len(ordered), GROUP)
    ]
    random.shuffle(groups)
    return groups
