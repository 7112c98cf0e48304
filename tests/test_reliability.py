"""docs/reliability.md is what the tests with the marker `fault` say, and no row is without one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def writing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("writing", ROOT / "scripts/write_reliability.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes(writing: ModuleType) -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    assert page == writing.page(writing.rows()), "python scripts/write_reliability.py"


def test_a_row_is_read_from_a_marker_with_what_runs_its_test(
    tmp_path: Path, writing: ModuleType
) -> None:
    (tmp_path / "tests").mkdir()
    file = tmp_path / "tests" / "test_made.py"
    marker = '@pytest.mark.fault("disk", "a | b", "one line")\n'
    test = "def test_it_ends() -> None: ...\n"
    file.write_text(f"import ray\n@pytest.mark.faults\n{marker}{test}")
    (row,) = writing.rows(tmp_path)
    where = ("tests/test_made.py", "test_it_ends", "make test-faults")
    assert row == ("disk", "a | b", "one line", *where)
    made = [row._replace(fault=fault) for fault in writing.FAULTS]
    page = writing.page(made)
    assert page.count("| a \\| b | one line | [it ends](../tests/test_made.py)") == len(made)
    assert page.count("(`make test-faults`)") == len(made)
    with pytest.raises(ValueError, match="no test of: kill"):
        writing.page(made[1:])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('@pytest.mark.fault("flood", "a", "b")\ndef test_x(): ...', "'flood' is none of kill, "),
        ('@pytest.mark.fault("disk", "a")\ndef test_x(): ...', "takes a fault, what happens, what"),
        ('@pytest.mark.fault("disk", "a", said)\ndef test_x(): ...', "takes a fault, what happens"),
        ("@pytest.mark.fault\ndef test_x(): ...", "takes a fault, what happens, what is seen"),
        ('pytestmark = pytest.mark.fault("disk", "a", "b")', "on the function of a test"),
        ('@pytest.mark.fault("disk", "a", "b")\ndef helper(): ...', "on the function of a test"),
        ('x = pytest.param(1, marks=pytest.mark.fault("disk", "a", "b"))', "on the function of"),
    ],
)
def test_a_marker_that_would_not_be_a_row_is_refused(
    tmp_path: Path, writing: ModuleType, text: str, said: str
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_made.py").write_text(text)
    with pytest.raises(ValueError, match=said):
        writing.rows(tmp_path)
