"""Chat templates as transformers compiles them, with bounds on time and on what they make.

A template is a program out of somebody's repository. It runs in transformers' sandbox, which
keeps it from the machine but lets it run for ever or fill the memory. Here its loops and calls
are counted and timed, and whatever can make much out of little is asked first how much. The
day is the same for all rows, and nothing is drawn at random.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from transformers.utils import chat_template_utils

from drsow_plugin.tokens.bounds import Budget, current, fit_call, fit_operation, size_of

_STEPS, _MADE = "drsow_steps", "drsow_made"
# Filters that make nothing longer than what they are given.
_AS_THEY_ARE = {
    *("attr", "count", "d", "default", "first", "items", "last", "length", "list", "map"),
    *("reject", "rejectattr", "reverse", "select", "selectattr"),
}


class BoundedTemplate:
    """A compiled chat template.

    Attributes:
        variables: What it reads beside what it sets itself and what every template has.
        asks_date: Whether it calls ``strftime_now``.
    """

    def __init__(self, source: str, date: datetime.date) -> None:
        """Compile a template.

        Args:
            source: Jinja source.
            date: The day of ``strftime_now``, at midnight.

        Raises:
            Exception: Whatever Jinja finds wrong with it.
        """
        budget = Budget(0)
        token = current.set(budget)  # what is constant is computed now
        try:
            budget.fit(len(source))
            environment = _environment(date)
            parsed = environment.parse(source)
            self.variables = frozenset(meta.find_undeclared_variables(parsed))
            self.asks_date = any(n.name == "strftime_now" for n in parsed.find_all(nodes.Name))
            self._template = environment.from_string(source)
        finally:
            current.reset(token)

    def render(self, context: dict[str, Any]) -> str:
        """Return what the template renders.

        Raises:
            BoundsError: It runs for too long or makes too much.
            Exception: Whatever else the template runs into.
        """
        token = current.set(Budget(size_of(context["messages"])))
        try:
            return self._template.render(context)
        finally:
            current.reset(token)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with bounds."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        fit_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        current.get().step()
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        name = getattr(__obj, "__name__", "")
        if isinstance(owner, (str, bytes)) and name == "join" and args:
            args = (fit_call(name, args[0], [owner]), *args[1:])
        elif isinstance(owner, (str, bytes, int)):
            fit_call(name, owner, [*args, *kwargs.values()])
        return _made(super().call(__context, __obj, *args, **kwargs))

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        budget, size, written = current.get(), 0, []
        for part in parts:
            size += len(part)
            budget.fit(size)
            written.append(part)
        return "".join(written)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        counted: nodes.Template = _Counted(self).visit(source)
        return super()._generate(counted, *args, **kwargs)


class _Counted(NodeTransformer):
    """Puts counters into loops, and bounds on lists and on texts put together with ``~``."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self._environment = environment

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._filter(node.iter, _STEPS)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filter(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return self._filter(node, _MADE)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return self._filter(node, _MADE) if node.ctx == "load" else node

    def _filter(self, value: nodes.Node, name: str) -> nodes.Filter:
        made = nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)
        made.set_environment(self._environment)
        return made


def _environment(date: datetime.date) -> jinja2.Environment:
    compiled: Any = chat_template_utils._compile_jinja_template("")
    environment: jinja2.Environment = compiled.environment.overlay()
    environment.__class__ = _Environment
    environment.finalize = _made
    midnight = datetime.datetime.combine(date, datetime.time())
    environment.globals = {**environment.globals, "strftime_now": midnight.strftime}
    environment.globals.pop("lipsum", None)
    environment.filters = {n: _bounded(n, f) for n, f in environment.filters.items()}
    environment.filters.pop("random", None)
    environment.filters |= {_STEPS: _steps, _MADE: _made}
    return environment


def _steps(items: Iterable[Any]) -> Iterator[Any]:
    step = current.get().step
    for item in items:
        step()
        yield item


def _made(value: Any) -> Any:
    """Return a value that is not too long as a text."""
    budget = current.get()
    budget.fit(size_of(value, budget))
    return value


def _bounded(name: str, apply: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that counts as a step and says beforehand what it will make."""
    first = 1 if hasattr(apply, "jinja_pass_arg") else 0  # before the value stands what Jinja adds

    @functools.wraps(apply)  # keeps that mark
    def bounded(*args: Any, **kwargs: Any) -> Any:
        current.get().step()
        if name in _AS_THEY_ARE:
            return apply(*args, **kwargs)
        if len(args) > first:
            rest = args[first + 1 :]
            value = fit_call(name, args[first], [*rest, *kwargs.values()])
            args = (*args[:first], value, *rest)
        return _made(apply(*args, **kwargs))

    return bounded
