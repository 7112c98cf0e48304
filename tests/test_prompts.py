"""Prompts as messages: checked once on the way down."""

from __future__ import annotations

import pickle

import pytest

from drsow_plugin.errors import DataError
from drsow_plugin.prompts import Messages, as_messages

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]


def test_checked_messages_come_back_as_they_are() -> None:
    messages = as_messages(TURNS, "row 0")
    assert messages == TURNS
    assert as_messages(messages, "row 0") is messages
    assert isinstance(pickle.loads(pickle.dumps(messages)), Messages)


def test_what_is_put_together_from_checked_messages_is_checked_again() -> None:
    messages = as_messages("Hi", "row 0")
    with pytest.raises(DataError, match="row 0, message 1: a message is"):
        as_messages([*messages, {"content": "no role"}], "row 0")
    assert not isinstance(messages[:1], Messages) and not isinstance(messages + TURNS, Messages)
