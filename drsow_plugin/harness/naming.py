"""What lm-eval's command shows of a pair: the name of its results, and errors in plain words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Namespace


def pair_name(model_args: str | Mapping[str, Any] | None) -> str | None:
    """Return ``STRONG_over_WEAK`` for the arguments of a pair, else ``None``."""
    if isinstance(model_args, str):
        parts = (part.partition("=") for part in model_args.split(","))
        model_args = {name.strip(): value for name, _, value in parts}
    if not isinstance(model_args, Mapping) or "weak" not in model_args:
        return None
    strong = model_args.get("strong") or model_args.get("pretrained") or "?"
    return f"{PurePath(str(strong)).name}_over_{PurePath(str(model_args['weak'])).name}"


def in_plain_words(execute: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
    """Return a command of lm-eval that ends with one line where this package raises an error."""

    def run(arguments: Namespace) -> None:
        from drsow_plugin.errors import DrSoWError
        from drsow_plugin.printable import printable

        try:
            execute(arguments)
        except DrSoWError as error:
            sys.exit(f"Error: {printable(str(error), lines=True)}")

    return run
