"""Writes docs/reliability.md from the tests that carry the marker `fault`.

python scripts/write_reliability.py            # writes the page
python scripts/write_reliability.py --check    # exit status 1 where it would change

The tests are read, not imported: what they need (Ray, servers) does not have to be there.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reliability.md"
FAULTS = {
    "kill": "A process is killed or interrupted",
    "worker": "A worker dies",
    "disk": "The disk is full",
    "folder": "A folder cannot be written, or is gone",
    "shard": "A file of finished work is damaged or missing",
    "model": "A model changes, or is not what it says",
    "two runs": "Two runs at once",
    "memory": "Memory runs out",
    "server": "A server is slow, wrong or gone",
    "rows": "Rows are poisoned",
    "clock": "The clock jumps",
}
"""What the first argument of the marker may be, with its heading; each has a test."""

ELSEWHERE = {
    "faults": "make test-faults",
    "ray": "make test-ray",
    "servers": "make test-servers",
    "gpu": "-m gpu",
}
"""The marks of tests that `make test` leaves out, with what runs them."""

TEXT = """\
# Faults

What happens when something breaks, and the test that holds it. In each case there is a clear
error or a null row with its reason; no finished work is lost, no number is wrong, and nothing stays
behind that a later run does not clean up. The list is written by `scripts/write_reliability.py`
from the tests that carry the marker `fault`: no row is here without its test. Tests run in
`make test` where nothing else is said.

{sections}
"""


class Row(NamedTuple):
    """One row of the table, which is one marker on one test.

    Attributes:
        fault: A key of ``FAULTS``.
        happens: What happens.
        seen: What is seen then.
        path: The file of the test, from the root of the repository.
        test: The name of its function.
        elsewhere: What runs the test, where ``make test`` does not.
    """

    fault: str
    happens: str
    seen: str
    path: str
    test: str
    elsewhere: str | None


def rows(root: Path = ROOT) -> list[Row]:
    """Return the rows of all tests, in the order of files and lines.

    Raises:
        ValueError: A marker is not of three texts, names no known fault, or is not on a test.
    """
    return [row for path in sorted(root.glob("tests/**/*.py")) for row in _rows_of(path, root)]


def _rows_of(path: Path, root: Path) -> Iterator[Row]:
    name = path.relative_to(root).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    whole = _marks(tree)
    found = {id(node) for node in ast.walk(tree) if _mark(node) == "fault"}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_":
            marks = whole | {mark for d in node.decorator_list if (mark := _mark(_called(d)))}
            elsewhere = [text for mark, text in ELSEWHERE.items() if mark in marks]
            for decorator in node.decorator_list:
                if _mark(_called(decorator)) == "fault":
                    found.discard(id(_called(decorator)))
                    fault, happens, seen = _texts(decorator, f"{name}: {node.name}")
                    yield Row(fault, happens, seen, name, node.name, *elsewhere[:1] or [None])
    if found:
        raise ValueError(f"{name}: the marker `fault` goes on the function of a test, as @pytest…")


def _marks(tree: ast.Module) -> set[str]:
    """Return the marks that a module gives to all of its tests."""
    return {
        mark
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(
            isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
        )
        for inner in ast.walk(node.value)
        if (mark := _mark(inner))
    }


def _called(node: ast.expr) -> ast.expr:
    return node.func if isinstance(node, ast.Call) else node


def _mark(node: ast.AST) -> str | None:
    """Return X of ``pytest.mark.X``."""
    is_mark = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pytest.mark"
    return node.attr if is_mark else None


def _texts(node: ast.expr, where: str) -> tuple[str, str, str]:
    given = node.args if isinstance(node, ast.Call) and not node.keywords else []
    texts = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if len(texts) != 3 or len(given) != 3 or not all(texts):
        raise ValueError(f"{where}: the marker `fault` takes a fault, what happens, what is seen")
    if texts[0] not in FAULTS:
        raise ValueError(f"{where}: {texts[0]!r} is none of {', '.join(FAULTS)}")
    return texts[0], texts[1], texts[2]


def page(found: list[Row]) -> str:
    """Return the page.

    Raises:
        ValueError: There is no test of one of the faults.
    """
    if untested := [fault for fault in FAULTS if fault not in {row.fault for row in found}]:
        raise ValueError(f"There is no test of: {', '.join(untested)}")
    return TEXT.format(sections="\n\n".join(_section(fault, found) for fault in FAULTS))


def _section(fault: str, found: list[Row]) -> str:
    lines = [
        f"## {FAULTS[fault]}",
        "",
        "| what happens | what is seen | test |",
        "| --- | --- | --- |",
    ]
    for row in found:
        if row.fault == fault:
            link = f"[{_words(row.test)}](../{row.path})"
            cells = (
                row.happens,
                row.seen,
                link + (f" (`{row.elsewhere}`)" if row.elsewhere else ""),
            )
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _words(test: str) -> str:
    return test.removeprefix("test_").replace("_", " ")


def main() -> int:
    """Write the page, or with --check say whether it would change."""
    text = page(rows())
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(PAGE.relative_to(ROOT))
    if "--check" in sys.argv:
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
