"""Text to token ids: with what looks like a control token read as one, or as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drsow_plugin.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # what text outside of the vocabulary becomes


class Codec:
    """Encodes texts in which every control token counts as one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Remember the tokenizer."""
        self._tokenizer = tokenizer
        self._specials: list[str] = list(tokenizer.all_special_tokens)
        added = tokenizer.added_tokens_decoder.values()
        self._stripping = tuple(token.content for token in added if token.rstrip)

    def ids(self, text: str) -> Ids:
        """Return the token ids of a text."""
        return self.ids_of([text])[text]

    def ids_of(self, texts: Sequence[str]) -> dict[str, Ids]:
        """Return the token ids of each text; all are encoded together.

        Raises:
            DataError: A text cannot be encoded as asked for.
        """
        return dict(zip(texts, self._encode(texts), strict=True)) if texts else {}

    def _encode(self, texts: Sequence[str]) -> Iterable[Ids]:
        encoding: Any = self._tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return map(tuple, encoding["input_ids"])

    def ids_after(self, before: str, text: str) -> Ids:
        """Tokenize ``text`` apart from ``before``, without a SentencePiece word-start mark.

        A SentencePiece tokenizer marks the start of any text as the start of a word. Behind
        an anchor that ``text`` does not merge with, it does so only where a word starts.
        """
        specials = [t for t in self._specials if before.endswith(t)]
        for anchor in (*specials, "\n", *self._specials[:1]):
            if anchor in self._stripping and text[:1].isspace():
                continue
            anchor_ids = self.ids(anchor)
            ids = self.ids(anchor + text)
            if ids[: len(anchor_ids)] == anchor_ids:
                return ids[len(anchor_ids) :]
        return self.ids(text)

    def strips_after(self, text: str) -> bool:
        """Tell whether white space behind a text is lost, as a token at its end strips it."""
        return bool(self._stripping) and text.rstrip().endswith(self._stripping)

    def closing_ids(self, after: str) -> Ids:
        """Return the ids of the first special token in a text and what stands before it.

        Args:
            after: What a template writes after a response. Where that is no more than white
                space, a response ends with the tokenizer's EOS.

        Raises:
            ConfigError: The tokenizer has none.
        """
        tokenizer = self._tokenizer
        specials = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
        specials.update(tokenizer.all_special_tokens)
        matches = [(after.index(t), -len(t), t) for t in specials if t and t in after]
        if matches:
            start, _, token = min(matches)
            if not after[:start].strip():
                return (*self.ids_after("", after[:start]), _token_id(tokenizer, token))
            return self.ids_after("", after[: start + len(token)])
        if after.strip():
            return self.ids_after("", after.rstrip())
        if isinstance(tokenizer.eos_token_id, int):
            return (tokenizer.eos_token_id,)
        raise ConfigError(
            "The chat template writes nothing after a response and the tokenizer has no EOS "
            "token, so a response has no end. Set end_of_turn=false to score without one."
        )


class TextCodec(Codec):
    """Encodes texts in which control tokens are ordinary text, but for those in disguise.

    A control token that is meant as one is spelled as a single private character.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, disguises: Mapping[str, str]) -> None:
        """Make a tokenizer that knows the control tokens by their disguises only.

        Args:
            tokenizer: The model's tokenizer.
            disguises: For each control token the character that it is spelled as.
        """
        super().__init__(tokenizer)
        self._disguises = disguises
        self._specials = [disguises.get(token, token) for token in self._specials]
        self._stripping = tuple(disguises.get(token, token) for token in self._stripping)
        self._own_ids = {
            _token_id(tokenizer, token): token
            for token in disguises
            if token != tokenizer.unk_token and not _BYTE.fullmatch(token)
        }
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._renamed = None if backend is None else _Renamed(backend, disguises)

    def _encode(self, texts: Sequence[str]) -> Iterable[Ids]:
        if self._renamed is not None:
            return [self._checked(*self._renamed.encode(text)) for text in texts]
        return [self._encode_pieces(text) for text in texts]

    def _checked(self, plain: Sequence[int], ids: Ids) -> Ids:
        """Return ids, unless a control token is among those of plain text.

        Raises:
            DataError: The vocabulary has it as an ordinary piece too.
        """
        token = next(filter(None, map(self._own_ids.get, plain)), None)
        if token is not None:
            raise DataError(
                f"the tokenizer makes its control token {token!r} of plain text too. Take it out "
                "of the row, or set control_tokens=parse."
            )
        return ids

    def _encode_pieces(self, text: str) -> Ids:
        """Encode piece by piece, as tokenizers written in Python do themselves."""
        tokenizer: Any = self._tokenizer
        added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
        known = {self._disguises.get(name, name): name for name in (*added, *self._disguises)}
        longest_first = sorted(known, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        for place in range(1, len(pieces), 2):
            token = added.get(known[pieces[place]])
            if token is not None and token.rstrip:
                pieces[place + 1] = pieces[place + 1].lstrip()
            if token is not None and token.lstrip:
                pieces[place - 1] = pieces[place - 1].rstrip()
        ids: list[int] = []
        for place, piece in enumerate(pieces):
            if place % 2:
                ids.append(_token_id(tokenizer, known[piece]))
            elif piece:
                tokens = tokenizer.tokenize(piece, split_special_tokens=True)
                plain = tokenizer.convert_tokens_to_ids(tokens)
                ids.extend(self._checked(plain, tuple(plain)))
        return tuple(ids)


class _Renamed:
    """A tokenizer of the tokenizers library with other names for some of its added tokens."""

    def __init__(self, backend: Tokenizer, names: Mapping[str, str]) -> None:
        from tokenizers import Tokenizer

        state = json.loads(backend.to_str())
        own = [entry["content"] for entry in state["added_tokens"]]
        for entry in state["added_tokens"]:
            entry["content"] = names.get(entry["content"], entry["content"])
        state |= {"truncation": None, "padding": None, "post_processor": None}
        self._renamed = Tokenizer.from_str(json.dumps(state))
        self._ids: dict[Any, Any] = {
            self._renamed.token_to_id(names.get(token, token)): backend.token_to_id(token)
            for token in own
        }
        self._named = {self._renamed.token_to_id(name) for name in names.values()}
        pieces = set(backend.get_vocab(with_added_tokens=False).values())
        self._collides = bool(self._named & (pieces - set(self._ids.values())))

    def encode(self, text: str) -> tuple[list[int], Ids]:
        """Return the ids that plain text became, and all ids as the first tokenizer has them.

        Raises:
            DataError: A renamed token got the id of an ordinary piece.
        """
        if self._collides:
            raise DataError(
                "the ids of the vocabulary have gaps, so the tokenizer cannot be made to read "
                "control tokens as text. Take them out of the row, or set control_tokens=parse."
            )
        ids = self._renamed.encode(text, add_special_tokens=False).ids
        plain = [i for i in ids if i not in self._named]
        return plain, tuple(self._ids.get(i, i) for i in ids)


def _token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    converted: Any = tokenizer.convert_tokens_to_ids(token)
    return int(converted)
