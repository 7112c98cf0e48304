"""Steps that are run, kept, killed and gone on with; what runs them is a stand-in here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from drsow_plugin import ConfigError, DrSoWError, StorageError
from drsow_plugin.errors import Interrupted
from drsow_plugin.pipeline import runner
from drsow_plugin.pipeline.finished import is_done, seconds_of
from drsow_plugin.pipeline.runner import Ran, run_plan
from drsow_plugin.pipeline.steps import Plan


def plan_of(folder: Path) -> Plan:
    plan = Plan(folder)
    first = plan.add("first", ["split", "prompts"], {"held_out": 3})
    second = plan.add("second", ["generate", first], {})
    plan.add("check", ["check", second], {}, ".json", "Other bounds. ", ("--json", "OUTPUT"))
    return plan


def writing(done: list[str], status: Callable[[str], int] = lambda _: 0) -> runner.Call:
    """Return what writes the output of a command, and notes that it was called."""

    def call(arguments: Sequence[str]) -> int:
        done.append(arguments[0])
        found = status(arguments[0])
        if found == 0:
            output = Path(arguments[2 if arguments[0] != "check" else 3])
            output.mkdir(parents=True, exist_ok=True)
        return found

    return call


def test_finished_steps_are_not_run_again(tmp_path: Path) -> None:
    plan, done, told = plan_of(tmp_path / "out"), [], []  # type: ignore[var-annotated]
    assert run_plan(plan, told.append, writing(done)) == Ran(3, 0)
    assert done == ["split", "generate", "check"]
    assert told[0] == f"[1/3] first:\n  drsow split prompts {plan.steps[0].output} --held-out 3"
    assert run_plan(plan, told.append, writing(done)) == Ran(0, 3)
    assert told[3:] == [f"[{n}/3] {s.name}: finished before" for n, s in enumerate(plan.steps, 1)]
    assert all((seconds_of(plan, step) or 0.0) >= 0 for step in plan.steps)


def test_what_is_gone_is_made_anew(tmp_path: Path) -> None:
    plan, done = plan_of(tmp_path), []  # type: ignore[var-annotated]
    run_plan(plan, str, writing(done))
    plan.steps[1].output.rmdir()
    assert [is_done(plan, step) for step in plan.steps] == [True, False, True]
    assert run_plan(plan, str, writing(done)) == Ran(1, 2)
    assert done[3:] == ["generate"]


@pytest.mark.parametrize(("status", "how"), [(3, "status 3"), (-9, "signal 9")])
def test_a_step_that_fails_is_named_and_those_before_it_are_kept(
    tmp_path: Path, status: int, how: str
) -> None:
    plan, done = plan_of(tmp_path), []  # type: ignore[var-annotated]
    failing = writing(done, lambda name: status if name == "check" else 0)
    with pytest.raises(DrSoWError, match=rf"Step 3 of 3, check, ended with {how}; .*above. Other"):
        run_plan(plan, str, failing)
    assert run_plan(plan, str, writing(done)) == Ran(1, 2)


def test_an_interrupted_step_is_run_again(tmp_path: Path) -> None:
    plan, done = plan_of(tmp_path), []  # type: ignore[var-annotated]

    def interrupted(name: str) -> int:
        if name == "generate":
            raise KeyboardInterrupt
        return 0

    with pytest.raises(Interrupted, match="in step 2 of 3, second, finished steps are kept"):
        run_plan(plan, str, writing(done, interrupted))
    assert run_plan(plan, str, writing(done)) == Ran(2, 1)


def test_a_training_that_ended_unseen_is_not_run_again(tmp_path: Path) -> None:
    plan = Plan(tmp_path)
    tuned = plan.add("tuned", ["tune", "pairs"], {})
    tuned.mkdir()
    (tuned / "tune.json").write_text(json.dumps({"begun": {}}), encoding="utf-8")
    done: list[str] = []

    def ended(arguments: Sequence[str]) -> int:
        done.append(arguments[0])
        (tuned / "tune.json").write_text(json.dumps({"begun": {}, "done": {}}), encoding="utf-8")
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run_plan(plan, str, ended)
    assert run_plan(plan, str, ended) == Ran(0, 1) and done == ["tune"]
    assert seconds_of(plan, plan.steps[0]) is None


def test_a_command_that_was_run_by_hand_is_finished(tmp_path: Path) -> None:
    plan, done = plan_of(tmp_path), []  # type: ignore[var-annotated]
    for step in plan.steps[1:]:
        step.output.mkdir()
    assert run_plan(plan, str, writing(done)) == Ran(3, 0)  # neither is known to be whole
    plan, done = plan_of(tmp_path / "other"), []
    for step in plan.steps[1:]:
        step.output.mkdir(parents=True)
        (step.output / "report.json").touch()
    # A check may have failed, whatever it wrote.
    assert run_plan(plan, str, writing(done)) == Ran(2, 1) and done == ["split", "check"]


def test_until_a_step(tmp_path: Path) -> None:
    plan, done = plan_of(tmp_path), []  # type: ignore[var-annotated]
    assert run_plan(plan, str, writing(done), until="first") == Ran(1, 0)
    with pytest.raises(ConfigError, match=r"Unknown step 'frist'\. Did you mean 'first'"):
        run_plan(plan, str, writing(done), until="frist")


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)

    def another(_arguments: Sequence[str]) -> int:
        return run_plan(plan_of(tmp_path), str, writing([])).finished

    with pytest.raises(ConfigError, match=r"Another run is at work in .*--out"):
        run_plan(plan, str, another)
    assert run_plan(plan, str, writing([])) == Ran(3, 0)  # the lock is gone with its run


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file is a file\. Give a folder to write to, with --ou"):
        run_plan(plan_of(tmp_path / "file" / "out"), str, writing([]))
    with pytest.raises(StorageError, match=r"cannot be written: .* Make room, and run again"):
        run_plan(plan_of(Path("/proc/none")), str, writing([]))


def test_an_output_that_was_replaced_after_others_were_made_of_it_is_told(tmp_path: Path) -> None:
    plan, done = plan_of(tmp_path), []  # type: ignore[var-annotated]
    first, second, check = (step.output for step in plan.steps)
    run_plan(plan, str, writing(done), until="second")
    (second / "rows.parquet").write_text("mine")
    assert run_plan(plan, str, writing(done)) == Ran(1, 2)  # nothing was made of it: it counts
    (second / "report.html").write_text("looked at")
    assert run_plan(plan, str, writing(done)) == Ran(0, 3)
    (second / "rows.parquet").write_text("hers")
    with pytest.raises(ConfigError, match=r"is not what the step second wrote, and check was") as e:
        run_plan(plan, str, writing(done))
    assert str(e.value).endswith(f"rm -r {check}")
    check.rmdir()
    assert run_plan(plan, str, writing(done)) == Ran(1, 2)
    (first / "train.jsonl").write_text("other prompts")
    with pytest.raises(ConfigError, match="first wrote, and second, check was made of that"):
        run_plan(plan, str, writing(done))


@pytest.mark.slow
def test_a_signal_reaches_the_step(tmp_path: Path) -> None:
    """The command of a step is told, and has ended before the pipeline does."""
    code = (
        "import sys, time; from pathlib import Path; from drsow_plugin.pipeline import runner;"
        "runner._BY_ITSELF_S = 0.1;"
        "runner.sys = type('S', (), {'executable': sys.argv[1]});"
        "from drsow_plugin.cli.signals import signals_told\n"
        "with signals_told():\n    runner.call_drsow([sys.argv[2]])"
    )
    child = tmp_path / "child"
    child.write_text(
        f"#!{sys.executable}\n"
        "import signal, sys, time\nfrom pathlib import Path\n"
        "def ended(*_):\n    time.sleep(0.5); Path(sys.argv[3] + '.ended').touch(); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, ended)\nPath(sys.argv[3]).touch()\ntime.sleep(60)\n",
        encoding="utf-8",
    )
    child.chmod(0o755)
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(child), str(mark)], stderr=subprocess.PIPE, text=True
    )
    while not mark.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + 15 and "Interrupted" in said
    assert Path(f"{mark}.ended").exists()
