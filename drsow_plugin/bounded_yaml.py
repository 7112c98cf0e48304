"""Reads YAML that others wrote: a small file stays small, however often it refers to itself."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 50
MAX_REPEATED = 10_000
"""Maximum number of nodes that aliases may add to those that are written out."""


def load_yaml(text: str) -> Any:
    """Return the plain values of a YAML document.

    Raises:
        ValueError: It is no YAML, is nested more than ``MAX_DEPTH`` deep, or its aliases repeat
            more than ``MAX_REPEATED`` nodes; says which in one line.
    """
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 (a SafeLoader with bounds)
    except Exception as error:  # PyYAML's constructors raise any: of a 13th month, of !!bool x
        raise ValueError(_said(error)) from error


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = self._repeated = 0
        self._sizes: dict[int, int] = {}  # nodes of each anchor, aliases in it written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, counting it and what it repeats."""
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise ValueError(f"an alias stands inside of what it repeats{_mark(node)}")
            self._nodes += self._sizes[id(node)]
            self._repeated += self._sizes[id(node)]
            if self._repeated > MAX_REPEATED:
                raise ValueError(
                    f"its aliases repeat more than {MAX_REPEATED:,} values{_mark(node)}"
                )
            return node
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep{_mark(parent)}")
        before = self._nodes
        self._nodes += 1
        node = super().compose_node(parent, index)
        self._sizes[id(node)] = self._nodes - before
        self._depth -= 1
        return node


def _said(error: Exception) -> str:
    """Return an error in one line, with the place that it names and without the text there."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    context = getattr(error, "context", None)
    said = f"{context}: {problem}" if context else str(problem)
    return f"{said}, in line {mark.line + 1}, column {mark.column + 1}"


def _mark(node: yaml.Node | None) -> str:
    return "" if node is None else f", in line {node.start_mark.line + 1}"
