"""What labelled rows were held to, and what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One bound.

    Attributes:
        name: What is checked.
        passed: Whether it holds; ``None`` where there is nothing to check.
        value: What was found, 0 to 1; ``None`` likewise.
        bound: What it is held to.
        at_least: Whether that is a minimum, not a maximum.
        n: Over how many rows, pairs or responses.
        of: Which of these.
        low: Lower end of the interval of the value, where it has one.
        high: Upper end.
        said: What else there is to say, or why nothing was checked.
        examples: The first rows at fault, as ``split:number``.
    """

    name: str
    passed: bool | None
    value: float | None
    bound: float
    at_least: bool = False
    n: int = 0
    of: str = "rows"
    low: float | None = None
    high: float | None = None
    said: str = ""
    examples: Sequence[str] = ()

    def line(self) -> str:
        """Return it as a line for a terminal."""
        mark = {True: "pass", False: "FAIL", None: "-"}[self.passed]
        if self.value is None:
            return f"  {mark:6}{self.name:20}not checked: {self.said}"
        bound = f"{'at least' if self.at_least else 'at most'} {self.bound:.4g}"
        ends = "" if self.low is None else f" ({self.low:.4g} to {self.high:.4g})"
        text = f"{self.value:.4g}{ends} of {self.n:,} {self.of}, {bound}"
        more = [self.said] if self.said else []
        if self.passed is False and self.examples:
            more.append(f"such as {', '.join(self.examples)}")
        return f"  {mark:6}{self.name:20}{'; '.join([text, *more])}"


@dataclass(frozen=True)
class Verdict:
    """What labelled rows were held to.

    Attributes:
        data: What they are called.
        kind: ``pairs``, ``candidates`` or ``single``.
        rows: How many were read.
        of_rows: How many there are.
        failures: Rows without a reward or a pair, by reason, those that labelling left out too.
        checks: Each bound.
    """

    data: str
    kind: str
    rows: int
    of_rows: int
    failures: Mapping[str, int]
    checks: Sequence[Check]

    @property
    def passed(self) -> bool:
        """Whether no bound is broken."""
        return all(check.passed is not False for check in self.checks)

    def values(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        checks = {check.name: asdict(check) for check in self.checks}
        for values in checks.values():
            del values["name"]
        about = {"data": self.data, "kind": self.kind, "rows": self.rows, "of_rows": self.of_rows}
        return {"passed": self.passed, **about, "failures": dict(self.failures), "checks": checks}

    def __str__(self) -> str:
        """Return it as lines for a terminal."""
        read = f"{self.rows:,} rows"
        if self.rows < self.of_rows:
            read = f"a random sample of {self.rows:,} of {self.of_rows:,} rows"
        word = "passed" if self.passed else "FAILED"
        return "\n".join([f"{self.data}: {word}, {read}", *(c.line() for c in self.checks)])
