"""The file that 'drsow enable' writes, and the module that it imports whenever Python starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from drsow_plugin.cli import enabling, main
from drsow_plugin.harness import tasks_path

ROOT = str(Path(enabling.__file__).parents[2])
NAMES = ("models", "tasks.manager", "loggers.evaluation_tracker", "_cli.harness")
EXPECTED = {
    "api.registry": "class Registry(dict):\n"
    "    def register(self, name, target):\n"
    "        self[name] = target\n"
    "model_registry = Registry()\n",
    "tasks.manager": "class TaskManager:\n"
    "    def __init__(self, verbosity=None, include_path=None, include_defaults=True):\n"
    "        self.paths = include_path\n",
    "utils": "def sanitize_model_name(name):\n    return name.upper()\n",
    "loggers.evaluation_tracker": "class GeneralConfigTracker:\n"
    "    def log_experiment_args(self, model_source, model_args, chat_template):\n"
    "        self.model_name = self.model_name_sanitized = 'theirs'\n",
    "_cli.harness": "class HarnessCLI:\n    def execute(self, args):\n        raise args\n",
}


def lm_eval(folder: Path, modules: dict[str, str]) -> Path:
    """Write a package that stands for a version of lm-eval; modules not given are empty."""
    for name, text in {**dict.fromkeys(NAMES, ""), **modules}.items():
        file = folder.joinpath("lm_eval", *name.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for package in (
        "lm_eval",
        *(f"lm_eval/{name.split('.')[0]}" for name in modules if "." in name),
    ):
        (folder / package / "__init__.py").touch()
    return folder


def python(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


IMPORT_ALL = "".join(f"import lm_eval.{name}\n" for name in NAMES)
LOAD = "import drsow_plugin._autoload\n"


def test_an_lm_eval_without_the_names_is_left_alone_with_one_warning(tmp_path: Path) -> None:
    found = python(LOAD + IMPORT_ALL + "print('on')", lm_eval(tmp_path, {}))
    assert (found.returncode, found.stdout) == (0, "on\n")
    (line,) = found.stderr.splitlines()
    assert line.startswith("drsow-plugin does not fit this lm-eval (lm_eval.models: ")
    assert line.endswith("or run 'drsow disable'.")
    strict = "import sys; sys.warnoptions.append('error')\n"
    assert python(strict + LOAD + IMPORT_ALL, tmp_path).returncode == 0


@pytest.mark.parametrize("first", ["", "import importlib.util as u; u.find_spec('lm_eval.models')"])
def test_lm_eval_is_extended_also_after_somebody_looked_for_it(tmp_path: Path, first: str) -> None:
    after = (
        "from lm_eval.api.registry import model_registry\n"
        "from lm_eval.tasks.manager import TaskManager\n"
        "from lm_eval.loggers.evaluation_tracker import GeneralConfigTracker\n"
        "def folder(**model_args):\n"
        "    tracker = GeneralConfigTracker()\n"
        "    tracker.log_experiment_args('drsow', model_args=model_args, chat_template=None)\n"
        "    return tracker.model_name, tracker.model_name_sanitized\n"
        "print(*model_registry)\n"
        "print(folder(strong='a', weak='b'), folder(pretrained='a'))\n"
        "print(type(lm_eval.models.__spec__.loader).__name__)\n"
    )
    found = python(f"{LOAD}{first}\n{IMPORT_ALL}{after}", lm_eval(tmp_path, EXPECTED))
    assert found.stderr == ""
    assert found.stdout.splitlines() == [
        "drsow reward",
        "('a_over_b', 'A_OVER_B') ('theirs', 'theirs')",
        "SourceFileLoader",  # nobody who looks at the module later sees ours
    ]


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        ("", ["ours"]),
        ("include_path='own'", ["ours", "own"]),
        ("None, ['own', 'other']", ["ours", "own", "other"]),
        ("include_path='own', include_defaults=False", "own"),
    ],
)
def test_our_tasks_stand_before_the_users(tmp_path: Path, arguments: str, paths: object) -> None:
    code = "from lm_eval.tasks.manager import TaskManager\n"
    code += f"print(TaskManager({arguments}).paths)"
    found = python(LOAD + code, lm_eval(tmp_path, EXPECTED))
    expected = str(paths).replace("ours", tasks_path())
    assert (found.stdout, found.stderr) == (f"{expected}\n", "")


def test_another_finder_that_asks_all_finders_does_no_harm(tmp_path: Path) -> None:
    other = (
        "import sys\n"
        "class Other:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        specs = [f.find_spec(name, path) for f in sys.meta_path if f is not Other]\n"
        "        return next(filter(None, specs), None)\n"
        "sys.meta_path.insert(0, Other)\n"
    )
    after = "from lm_eval.api.registry import model_registry\nprint(*model_registry)"
    found = python(other + LOAD + IMPORT_ALL + after, lm_eval(tmp_path, EXPECTED))
    assert (found.stdout, found.stderr) == ("drsow reward\n", "")


def test_our_errors_end_lm_evals_command_with_one_line_and_others_pass(tmp_path: Path) -> None:
    lm_eval(tmp_path, EXPECTED)
    hook = "import sys; before = sys.excepthook\n"
    code = (
        "from drsow_plugin.errors import DataError\nfrom lm_eval._cli.harness import HarnessCLI\n"
    )
    ours = python(f"{LOAD}{code}HarnessCLI().execute(DataError('bad row'))", tmp_path)
    assert (ours.returncode, ours.stderr) == (1, "Error: bad row\n")
    other = python(f"{LOAD}{code}HarnessCLI().execute(ValueError('theirs'))", tmp_path)
    assert "Traceback" in other.stderr and "ValueError: theirs" in other.stderr
    untouched = python(f"{hook}{LOAD}{code}print(sys.excepthook is before)", tmp_path)
    assert untouched.stdout == "True\n"


@pytest.mark.parametrize("content", ["def broken(:\n", "raise RuntimeError('half installed')\n"])
def test_a_broken_package_never_stops_or_disturbs_python(tmp_path: Path, content: str) -> None:
    (tmp_path / "drsow_plugin").mkdir()
    (tmp_path / "drsow_plugin" / "__init__.py").touch()
    (tmp_path / "drsow_plugin" / "_autoload.py").write_text(content)
    (tmp_path / "drsow_autoload.pth").write_text(enabling._PTH_LINE)
    code = f"import site; site.addsitedir({str(tmp_path)!r}); print('on')"
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "on\n", "")


@pytest.fixture
def pth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(enabling, "_pth_path", lambda: folder / "drsow_autoload.pth")
    return folder / "drsow_autoload.pth"


def drsow(command: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, [command])
    return result.exit_code, result.output


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_enable_writes_a_file_that_all_may_read_and_one_may_write(pth: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):
            assert drsow("enable")[0] == 0
    finally:
        os.umask(before)
    assert pth.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in pth.parent.iterdir()] == [pth.name]
    assert drsow("status")[1].startswith("lm_eval knows drsow: yes")


def test_enable_never_writes_through_a_link(pth: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    pth.symlink_to(other)
    assert drsow("status")[1].startswith("lm_eval knows drsow: no (")
    assert drsow("enable")[0] == 0
    assert other.read_text() == "theirs" and not pth.is_symlink()
    pth.unlink()
    pth.symlink_to(tmp_path / "nothing")
    assert "removed" in drsow("disable")[1] and not pth.is_symlink()


def test_enable_is_done_whole_or_not_at_all(pth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pth.write_text("of a former version")
    assert "is not what 'drsow enable' writes" in drsow("status")[1]

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    code, output = drsow("enable")
    assert code == 1 and "cannot be written: No space left on device" in output
    assert pth.read_text() == "of a former version"
    assert [file.name for file in pth.parent.iterdir()] == [pth.name]


def test_a_folder_in_the_place_of_the_file_is_told(pth: Path) -> None:
    pth.mkdir()
    for command in ("enable", "disable"):
        code, output = drsow(command)
        assert code == 1 and output.startswith(f"Error: {pth} cannot be ")
    assert "cannot be read" in drsow("status")[1]
