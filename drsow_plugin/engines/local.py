"""The engine that runs transformers in this process."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch

from drsow_plugin.engines.network import Network
from drsow_plugin.errors import EngineError, NonFiniteError
from drsow_plugin.records import NOT_FINITE, OUT_OF_MEMORY, LogProb, TokenPair

CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 16384
_LOGIT_BYTES = {"cpu": 64 << 20}  # most memory for one chunk of logits, in float32
_GPU_LOGIT_BYTES = 512 << 20
_Row = tuple[tuple[int, ...], tuple[int, ...]]


def _ignore(_tokens: int) -> None:
    """Take no notice of progress."""


class LocalEngine:
    """Scores token pairs with one causal language model of transformers."""

    def __init__(
        self,
        network: Network,
        *,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        adapter: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Wrap a loaded model.

        Args:
            network: The model.
            batch_tokens: Most tokens in a batch, padding included; ``None`` fits the
                device. It is halved whenever the device runs out of memory.
            batch_size: Most rows in a batch; ``None`` is no limit.
            adapter: Returns a context in which the model's adapter is the right one.
        """
        on_cpu = network.device.type == "cpu"
        self._network = network
        self._batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS)
        self._batch_size = batch_size or sys.maxsize
        self._adapter = adapter

    def logprobs(
        self,
        pairs: Sequence[TokenPair],
        advance: Callable[[int], object] = _ignore,
        *,
        per_token: bool = False,
        strict: bool = True,
    ) -> list[LogProb]:
        """Score responses; see :class:`drsow_plugin.engines.Engine`."""
        distinct: dict[_Row, int] = {}
        for index, pair in enumerate(pairs):
            if pair.response_ids:
                distinct.setdefault((pair.prompt_ids, pair.response_ids), index)
        longest_first = sorted(distinct.values(), key=lambda index: (-len(pairs[index]), index))
        done: dict[int, LogProb] = {}
        with torch.inference_mode(), self._adapter():
            waiting = longest_first
            while waiting:
                batch = self._first_batch(waiting, pairs)
                scored = self._try([pairs[index] for index in batch], strict)
                if scored is None:
                    continue  # the budget was halved: the next first batch is smaller
                for index, logprob in zip(batch, scored, strict=True):
                    if logprob.failure and strict:
                        raise NonFiniteError(logprob.failure.partition(": ")[2], index)
                    done[index] = logprob if per_token else replace(logprob, token_logprobs=None)
                advance(sum(len(pairs[index]) for index in batch))
                waiting = waiting[len(batch) :]
        empty = LogProb(0.0, 0, () if per_token else None)
        return [
            done[distinct[pair.prompt_ids, pair.response_ids]] if pair.response_ids else empty
            for pair in pairs
        ]

    def _first_batch(self, waiting: Sequence[int], pairs: Sequence[TokenPair]) -> Sequence[int]:
        """Return the longest rows that fit the budget together; always at least one."""
        length = len(pairs[waiting[0]]) - 1
        rows = min(max(1, self._batch_tokens // max(1, length)), self._batch_size)
        limit = self._network.long_from
        if limit is None or length <= limit:
            return waiting[:rows]
        return [index for index in waiting[:rows] if len(pairs[index]) - 1 > limit]

    def _try(self, batch: Sequence[TokenPair], strict: bool) -> list[LogProb] | None:
        """Score one batch, or halve the budget and return ``None`` when memory runs out."""
        try:
            return self._score(batch)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if len(batch) == 1:
                message = (
                    f"a single row of {len(batch[0])} tokens. Lower max_length, use a smaller "
                    "dtype, or spread the model with device_map=auto."
                )
                if strict:
                    raise EngineError(f"Out of memory on {message}") from error
                failure = f"{OUT_OF_MEMORY}: {message}"
                return [LogProb(math.nan, len(batch[0].response_ids), failure=failure)]
        longest = len(batch[0]) - 1
        self._batch_tokens = max(longest, longest * len(batch) // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _score(self, batch: Sequence[TokenPair]) -> list[LogProb]:
        """Return the log-prob of each row's response."""
        ids = [(*pair.prompt_ids, *pair.response_ids) for pair in batch]
        width = len(ids[0]) - 1  # the last token is predicted, never read
        padded = torch.tensor([[*row[:-1], *row[:1] * (width + 1 - len(row))] for row in ids])
        hidden = self._network.hidden(padded.to(self._network.device))
        rows: list[int] = []
        columns: list[int] = []
        targets: list[int] = []
        for row, pair in enumerate(batch):
            first = len(pair.prompt_ids) - 1
            rows += [row] * len(pair.response_ids)
            columns += range(first, first + len(pair.response_ids))
            targets += pair.response_ids
        selected = hidden[torch.tensor(rows), torch.tensor(columns)]
        del hidden
        values = torch.cat([*self._token_logprobs(selected, torch.tensor(targets))]).tolist()
        scored, start = [], 0
        for pair in batch:
            stop = start + len(pair.response_ids)
            scored.append(_summed(values[start:stop]))
            start = stop
        return scored

    def _token_logprobs(
        self, hidden: torch.Tensor, targets: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Yield, chunk by chunk, ln p of each target: logit minus log-sum-exp.

        The exponentials are taken in float32 (float64 for a float64 model) after subtracting
        the maximum, and summed in float64: a float32 sum over a vocabulary of 49,152 is off
        by up to 3e-3 nats a response.
        """
        device = hidden.device
        limit = _LOGIT_BYTES.get(device.type, _GPU_LOGIT_BYTES)
        size = max(1, limit // (4 * self._network.vocab_size))
        wide = torch.float32 if device.type == "mps" else torch.float64
        for start in range(0, len(hidden), size):
            logits = self._network.logits(hidden[start : start + size])
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            index = targets[start : start + size].to(logits.device).unsqueeze(-1)
            top = logits.amax(dim=-1, keepdim=True)
            chosen = (logits.gather(-1, index) - top).squeeze(-1)
            total = (logits - top).exp_().sum(dim=-1, dtype=wide)
            yield (chosen.to(wide) - total.log()).cpu().double()


def _summed(values: list[float]) -> LogProb:
    """Return the log-prob of a response from those of its tokens."""
    unusual = next((value for value in values if not math.isfinite(value)), None)
    if unusual is not None:
        return LogProb(
            math.nan, len(values), failure=f"{NOT_FINITE}: the log-prob came out as {unusual}"
        )
    return LogProb(math.fsum(values), len(values), tuple(values))


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
