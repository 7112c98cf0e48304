"""The example package: built, installed into an environment of its own, and used there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from helpers.harness import metadata_argument

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def call(*command: object, **options: Any) -> str:
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment that sees this one's packages, with the example's wheel in it."""
    folder = tmp_path_factory.mktemp("environment")
    source = folder / "plugin-legal"
    source.mkdir()
    for file in (ROOT / "examples" / "plugin-legal").iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    call(*pip, "wheel", "-q", *offline, "-w", folder, source)
    (wheel,) = folder.glob("drsow_legal-*.whl")
    call(sys.executable, "-m", "venv", folder / "env")
    python = folder / "env" / "bin" / "python"
    purelib = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(purelib) / "others.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    call(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
    return folder / "env" / "bin"


def test_the_package_is_found_by_its_entry_point(environment: Path) -> None:
    python = environment / "python"
    out = call(python, "-m", "drsow_plugin.cli", "plugins")
    assert "legal  (drsow-legal 0.1.0: " in out and "domain legal, router legal" in out
    routed = call(
        *(python, "-m", "drsow_plugin.cli", "route", "--router", "legal", "--json"),
        input="Can my landlord raise the rent?\nHello.\n",
    )
    assert [json.loads(line)["domain"] for line in routed.splitlines()] == ["legal", None]


def test_the_package_routes_in_lm_eval(
    environment: Path, strong: str, weak: str, tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "Is this contract valid?", "chosen": "It depends.", "rejected": "A dog."},
        {"prompt": "Name a prime.", "chosen": "Seven.", "rejected": "A cat."},
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    call(
        *(environment / "python", "-m", "drsow_plugin.cli", "eval", "--model", "drsow"),
        *("--model_args", f"strong={strong},weak={weak},router=legal"),
        *("--tasks", "preference", "--metadata", metadata_argument(data)),
        *("--output_path", tmp_path / "out"),
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    (file,) = (tmp_path / "out").glob("**/results_*.json")
    found = json.loads(file.read_text())["config"]["drsow"]
    assert {name: of["pairs"] for name, of in found["domains"]["domains"].items()} == {
        "legal": 1,
        "(none)": 1,
    }
    assert found["routing"]["plugin"]["origin"] == "drsow-legal"
    assert found["routing"]["plugin"]["version"] == "0.1.0"
