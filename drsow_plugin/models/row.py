"""A prompt and a response to it, as one model is given them."""

from __future__ import annotations

from dataclasses import dataclass

from drsow_plugin.errors import DataError
from drsow_plugin.prompts import as_messages, check_text
from drsow_plugin.records import Message, Prompt


@dataclass(frozen=True)
class ModelRow:
    """A prompt and a response to it, for one model.

    Attributes:
        messages: The prompt, as :func:`~drsow_plugin.prompts.as_messages` returns it.
        response: Scored as given.
        where: What the row is called in an error, such as ``row 3``.
    """

    messages: list[Message]
    response: str
    where: str

    @classmethod
    def read(cls, prompt: Prompt, response: str, where: str) -> ModelRow:
        """Return a row, with its prompt as messages.

        Raises:
            DataError: The prompt or the response is not what it should be.
        """
        if not isinstance(response, str):
            raise DataError(f"{where}: a response is a string, got {type(response).__name__}.")
        check_text(response, f"{where}, response")
        return cls(as_messages(prompt, where), response, where)
