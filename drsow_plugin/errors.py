"""Errors that a user can act on.

    DrSoWError                  anything this package raises on purpose
    ├── ConfigError             an option, a model or a file name is wrong
    │   ├── HubError            the Hugging Face Hub refused or could not be reached
    │   ├── MissingExtraError   an optional package is not installed
    │   └── PluginError         a plugin cannot be loaded, or its router failed
    ├── DataError               a prompt, a response or a data set is wrong
    │   ├── OverflowLengthError a row is longer than ``max_length``
    │   └── TemplateError       a chat template cannot render a conversation
    ├── EngineError             the model failed while scoring
    │   └── NonFiniteError      a log-prob came out as NaN or infinite
    └── StorageError            files cannot be read or written: no room, no permission
    Interrupted                 Ctrl-C or a signal ended a run; what is finished is kept

Each message says what was wrong, what was got and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MANY, _NEAREST = 24, 6
"""More names than the first are too many for a line: so many of the nearest are given."""


class DrSoWError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(DrSoWError):
    """An option, a model or a file name is wrong."""


class HubError(ConfigError):
    """The Hugging Face Hub refused a request or could not be reached."""


class MissingExtraError(ConfigError):
    """An optional package is needed and is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs a package that is not installed: pip install 'drsow-plugin[{extra}]'"
        )


class PluginError(ConfigError):
    """A plugin cannot be loaded, clashes with another, or its router failed."""


class DataError(DrSoWError):
    """A prompt, a response or a data set cannot be scored as it is."""


class OverflowLengthError(DataError):
    """A row is longer than ``max_length`` and ``overflow`` is ``error``."""


class TemplateError(DataError):
    """A chat template cannot render a conversation."""


class EngineError(DrSoWError):
    """The model failed while scoring."""


class NonFiniteError(EngineError):
    """A log-prob came out as NaN or infinite.

    Attributes:
        index: Position, in the pairs given to the engine, of the row at fault.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


class StorageError(DrSoWError):
    """Files cannot be read or written: the disk is full, or the system forbids it."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a signal ended a run; the text says what is kept."""


def unknown_name(kind: str, got: str, valid: Iterable[str]) -> str:
    """Return the message for a name that is not among the valid ones.

    Args:
        kind: What was named, such as ``option``.
        got: The name that was given.
        valid: The names that would have been accepted.

    Returns:
        One sentence each for what was wrong, the nearest valid name and the valid names, of which
        the nearest are given where they are many.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(got, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = "Valid"
    if len(names) > _MANY:
        listed = f"The nearest of {len(names)} valid ones"
        names = difflib.get_close_matches(got, names, n=_NEAREST, cutoff=0.0)
    return f"Unknown {kind} {got!r}.{hint} {listed}: {', '.join(names)}."
