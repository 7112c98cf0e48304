"""What lm-eval's command shows of a pair: the name of its results, and errors in plain words."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import PurePath
from types import TracebackType
from typing import Any


def pair_name(model_args: str | Mapping[str, Any] | None) -> str | None:
    """Return ``STRONG_over_WEAK`` for the arguments of a pair, else ``None``."""
    if isinstance(model_args, str):
        parts = (part.partition("=") for part in model_args.split(","))
        model_args = {name.strip(): value for name, _, value in parts}
    if not isinstance(model_args, Mapping) or "weak" not in model_args:
        return None
    strong = model_args.get("strong") or model_args.get("pretrained") or "?"
    return f"{PurePath(str(strong)).name}_over_{PurePath(str(model_args['weak'])).name}"


def install_excepthook() -> None:
    """Show this package's errors without a traceback when lm-eval's command ends with one."""
    previous = sys.excepthook

    def show(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        from drsow_plugin.errors import DrSoWError
        from drsow_plugin.printable import printable

        if isinstance(error, DrSoWError):
            print(f"Error: {printable(str(error), lines=True)}", file=sys.stderr)
        else:
            previous(kind, error, traceback)

    sys.excepthook = show
