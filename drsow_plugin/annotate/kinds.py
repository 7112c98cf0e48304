"""From rewards to columns, in the shapes that TRL's trainers take: one class a kind of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from drsow_plugin.annotate.columns import (
    COUNT,
    FLAG,
    MESSAGES,
    NUMBER,
    TEXT,
    Column,
    Schema,
    Status,
    conversation,
    missing_rewards,
    one_problem,
)
from drsow_plugin.annotate.items import Item
from drsow_plugin.annotate.labeller import Batch, Label, Labeller, raw_prompt
from drsow_plugin.annotate.layout import Layout
from drsow_plugin.annotate.options import Kind, LabelConfig
from drsow_plugin.annotate.selection import CLOSE, Choice, select_pair
from drsow_plugin.records import Problem, Reward

_TRAINED = ("prompt", "chosen", "rejected")  # as TRL's trainers name them


class SingleLabeller(Labeller):
    """One response a row."""

    def _added(self) -> Schema:
        return self.per_response

    def _label(self, item: Item, rewards: Sequence[Reward | None], row: Mapping[str, Any]) -> Label:
        reward = rewards[0] if rewards else None
        values = {name: self._value(reward, name) for name in self.per_response}
        return Label(values, Status(one_problem(reward.problems if reward else ())))


class PairLabeller(Labeller):
    """A chosen and a rejected response a row."""

    def __init__(
        self, layout: Layout, config: LabelConfig, batch: Batch, types: pa.Schema | None = None
    ) -> None:
        """See :class:`Labeller`."""
        super().__init__(layout, config, batch, types)
        mixed = layout.prompt is not None and self.text_prompt != self.text_response
        wanted = mixed if config.messages is None else config.messages
        # Where all of it is messages already there is nothing to write.
        self.writes_messages = wanted and (self.text_response or self.text_prompt)
        # What stands in several columns has to be written, as text where it is not rewritten.
        self._composed = layout.label is not None or layout.input is not None
        self._writes = self.writes_messages or self._composed
        plain = self.text_response and (self.text_prompt or layout.prompt is None)
        self._text = plain and not self.writes_messages
        self._swaps = config.relabel == "swap"

    def _added(self) -> Schema:
        added: Schema = {}
        for side in ("chosen", "rejected"):
            for name, column in self.per_response.items():
                added[f"{side}_{name}"] = Column(column.type, f"{side} response: {column.meaning}")
        added["margin"] = Column(NUMBER, "reward of chosen minus reward of rejected, nats")
        added |= self._fitted()
        if self._swaps:
            added["swapped"] = Column(FLAG, "whether chosen and rejected were exchanged")
        return added

    def _written(self) -> Schema:
        if not self._writes:
            return {}
        shape = TEXT if self._text else MESSAGES
        return {
            "prompt": Column(shape, "the prompt"),
            "chosen": Column(shape, "the preferred response"),
            "rejected": Column(shape, "the other response"),
        }

    def renames(self) -> dict[str, str]:
        """Return the columns of the pair that have other names than TRL's."""
        if self._writes or self.config.keep_names:
            return {}
        return self._other_names()

    def superseded(self) -> list[str]:
        """Return those columns, where they are renamed or were rewritten under TRL's names."""
        keeps = self.config.keep_names or self._composed
        return [] if keeps else list(self._other_names())

    def _other_names(self) -> dict[str, str]:
        names = zip(_TRAINED, (self.layout.prompt, *self.layout.responses), strict=True)
        return {own: name for name, own in names if own is not None and own != name}

    def _label(self, item: Item, rewards: Sequence[Reward | None], row: Mapping[str, Any]) -> Label:
        chosen, rejected = rewards or (None, None)
        margin = None
        if chosen and rejected and chosen.reward is not None and rejected.reward is not None:
            margin = chosen.reward - rejected.reward
        swapped = self._swaps and margin is not None and margin < 0
        if swapped and margin is not None:
            chosen, rejected, margin = rejected, chosen, -margin
        sides = {"chosen": chosen, "rejected": rejected}
        values: dict[str, Any] = {
            f"{side}_{name}": self._value(reward, name)
            for side, reward in sides.items()
            for name in self.per_response
        }
        values["margin"] = margin
        values |= self._fitted_values(margin, chosen, rejected)
        if self._swaps:
            values["swapped"] = swapped
        minimum = self.config.min_margin
        is_close = margin is not None and margin < minimum and minimum > 0
        status = Status(Problem(CLOSE, "") if is_close else missing_rewards(sides))
        if self._writes:
            values |= self._pair(item, row, swapped)
        return Label(values, status, swapped and not self._writes)

    def _pair(self, item: Item, row: Mapping[str, Any], swapped: bool) -> dict[str, Any]:
        """Return prompt, chosen and rejected as they are written; of a bad row what there is."""
        raw = [None if self.layout.label else row[name] for name in self.layout.responses]
        texts = [value if isinstance(value, str) else None for value in raw]
        prompt, responses = conversation(item.prompt, item.responses or texts)
        written: dict[str, Any] = dict(zip(("chosen", "rejected"), responses, strict=True))
        written["prompt"] = raw_prompt(row, self.layout) if item.problem else prompt
        if self._text:
            written = {name: turns and turns[-1]["content"] for name, turns in written.items()}
        if swapped:
            written["chosen"], written["rejected"] = written["rejected"], written["chosen"]
        return written


class CandidateLabeller(Labeller):
    """A list of responses a row, of which two become a pair."""

    def __init__(
        self, layout: Layout, config: LabelConfig, batch: Batch, types: pa.Schema | None = None
    ) -> None:
        """See :class:`Labeller`."""
        super().__init__(layout, config, batch, types)
        self.writes_messages = config.messages is not False or not self.text_prompt
        self._writes_prompt = layout.prompt != "prompt" or self.writes_messages

    def _added(self) -> Schema:
        return {
            **{_plural(name): column.of_each() for name, column in self.per_response.items()},
            "chosen_index": Column(COUNT, "position of the chosen response in the list"),
            "rejected_index": Column(COUNT, "position of the rejected response in the list"),
            # Under the plain name TRL's RewardTrainer would take it for the margin of its loss.
            "margin": Column(NUMBER, "chosen_score minus rejected_score, nats"),
            **self._fitted(),
        }

    def _written(self) -> Schema:
        shape = MESSAGES if self.writes_messages else TEXT
        prompt = {"prompt": Column(shape, "the prompt")} if self._writes_prompt else {}
        return prompt | {
            "chosen": Column(shape, "the preferred response"),
            "rejected": Column(shape, "the other response"),
            "chosen_score": Column(NUMBER, "reward of the chosen response, nats"),
            "rejected_score": Column(NUMBER, "reward of the rejected response, nats"),
        }

    def _label(self, item: Item, rewards: Sequence[Reward | None], row: Mapping[str, Any]) -> Label:
        nats = [reward.reward if reward else None for reward in rewards]
        choice = select_pair(item, nats, self.config)
        values: dict[str, Any] = {
            _plural(name): [self._value(reward, name) for reward in rewards]
            for name in self.per_response
        }
        values |= {"chosen_index": choice.chosen, "rejected_index": choice.rejected}
        values |= self._pair(item, nats, choice)
        pair = [None if i is None else rewards[i] for i in (choice.chosen, choice.rejected)]
        values |= self._fitted_values(values["margin"], pair[0], pair[1])
        if item.problem and self._writes_prompt:
            raw = row[str(self.layout.prompt)]
            values["prompt"] = raw_prompt(row, self.layout) if self.writes_messages else raw
        return Label(values, _status(choice, rewards))

    def _pair(self, item: Item, rewards: Sequence[float | None], choice: Choice) -> dict[str, Any]:
        """Return the columns that TRL's trainers read."""
        indices = (choice.chosen, choice.rejected)
        texts = [None if i is None else item.responses[i] for i in indices]
        chosen_score, rejected_score = (None if i is None else rewards[i] for i in indices)
        prompt, responses = conversation(item.prompt, texts)
        written: dict[str, Any] = dict(
            zip(("chosen", "rejected"), responses if self.writes_messages else texts, strict=True)
        )
        if self._writes_prompt:
            text = item.prompt[0]["content"] if item.prompt else None
            written["prompt"] = (prompt or None) if self.writes_messages else text
        written |= {"chosen_score": chosen_score, "rejected_score": rejected_score, "margin": None}
        if chosen_score is not None and rejected_score is not None:
            written["margin"] = chosen_score - rejected_score
        return written


def make_labeller(
    layout: Layout, config: LabelConfig, batch: Batch, types: pa.Schema | None = None
) -> Labeller:
    """Return the labeller for a data set; see :class:`Labeller`."""
    kinds: dict[Kind, Callable[..., Labeller]] = {
        "pairs": PairLabeller,
        "candidates": CandidateLabeller,
        "single": SingleLabeller,
    }
    return kinds[layout.kind](layout, config, batch, types)


def _status(choice: Choice, rewards: Sequence[Reward | None]) -> Status:
    """Return how a row of candidates went."""
    missing = missing_rewards({f"response {i}": reward for i, reward in enumerate(rewards)})
    if choice.problem is None:
        return Status(missing, is_partial=missing is not None)
    if missing and not any(reward and reward.reward is not None for reward in rewards):
        return Status(missing)
    return Status(Problem(choice.problem, str(missing or "")))


def _plural(name: str) -> str:
    return name if name.endswith("s") else f"{name}s"
