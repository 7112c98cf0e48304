"""The command drsow, and the plain command lm_eval once it is enabled."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from helpers import commands
from helpers.harness import NEXT, metadata_argument, run

from drsow_plugin import DrSoWLM

PURELIB = sysconfig.get_path("purelib")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a virtual environment that sees this one's packages; return its python."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # The packages of this environment, without a file that 'drsow enable' may have put here.
    lines = [
        f"import sys; sys.path.append({PURELIB!r})",
        *(
            line
            for file in Path(PURELIB).glob("*.pth")
            if file.name != "drsow_autoload.pth"
            for line in file.read_text(encoding="utf-8").splitlines()
        ),
    ]
    (Path(site) / "packages.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return python


def call(python: Path | str, *arguments: str, cwd: Path | None = None) -> tuple[int, str, str]:
    result = subprocess.run(
        [str(python), *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=cwd,
        check=False,
    )
    return result.returncode, result.stdout, result.stderr


def drsow(python: Path | str, *arguments: str, cwd: Path | None = None) -> tuple[int, str, str]:
    return call(python, "-c", "from drsow_plugin.cli import main; main()", *arguments, cwd=cwd)


def lm_eval_args(strong: str, weak: str, data: Path, output: Path) -> list[str]:
    return [
        *("--model", "drsow", "--model_args", f"strong={strong},weak={weak},weak_template=none"),
        *("--tasks", "preference", "--metadata", metadata_argument(data)),
        *("--output_path", str(output), "--log_samples"),
    ]


def only_results(folder: Path) -> dict[str, object]:
    (file,) = folder.glob("*/results_*.json")
    assert "_over_" in file.parent.name
    results = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(results, dict)
    return results


KNOWN = "from lm_eval.api.registry import get_model; get_model('dummy'); print(get_model('drsow'))"
THEN_TASKS = "; import sys; sys.argv = ['lm_eval', 'ls', 'tasks']; from lm_eval.__main__ import "
THEN_TASKS += "cli_evaluate; cli_evaluate()"


@pytest.mark.slow
def test_enable_makes_the_plain_command_know_drsow(
    environment: Path, tmp_path: Path, strong: str, weak: str, preference_file: Path
) -> None:
    assert "no (run 'drsow enable')" in drsow(environment, "status")[1]
    assert drsow(environment, "enable")[0] == 0
    assert "lm_eval knows drsow: yes" in drsow(environment, "status")[1]

    arguments = ["-m", "lm_eval", *lm_eval_args(strong, weak, preference_file, tmp_path / "out")]
    status, stdout, stderr = call(environment, *arguments)
    assert status == 0, stderr
    assert "|preference|" in stdout and "acc_longer" in stdout
    results = only_results(tmp_path / "out")
    assert results["config"]["drsow"]["weak"]["template"] == "none"  # type: ignore[index]

    status, stdout, _ = call(environment, "-c", KNOWN + THEN_TASKS)
    assert status == 0 and "DrSoWLM" in stdout.splitlines()[0]
    assert {"preference", "llmbar", "rewardbench", "hellaswag"} <= {
        line.split("|")[1].strip() for line in stdout.splitlines() if line.startswith("|")
    }
    # Errors are shown without a traceback, also by lm-eval's own command.
    status, _, stderr = call(environment, *arguments[:4], "--tasks", "preference")
    assert status != 0 and "No strong model was given" in stderr and "Traceback" not in stderr

    assert "removed" in drsow(environment, "disable")[1]
    assert "Not enabled" in drsow(environment, "disable")[1]
    assert "no model for this name" in call(environment, "-c", KNOWN)[2]


def test_eval_takes_lm_evals_arguments(
    *, own_tasks: None, tmp_path: Path, strong: str, weak: str, preference_file: Path
) -> None:
    result = commands.drsow(
        "eval",
        *lm_eval_args(strong, weak, preference_file, tmp_path / "out"),
        *("--limit", "2", "--batch_size", "auto", "--device", "cpu", "--apply_chat_template"),
    )
    assert result.exit_code == 0, result.output
    assert "|preference|" in result.stdout
    results = only_results(tmp_path / "out")
    assert results["n-samples"]["preference"] == {"original": 3, "effective": 2}  # type: ignore[index]


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ("strong={s},weak={s}", "the same model in every option"),
        ("strong={s},weak={w}", "has no column 'rejected'"),
    ],
)
def test_mistakes_give_one_plain_error_and_a_status(
    *,
    own_tasks: None,
    tmp_path: Path,
    strong: str,
    weak: str,
    model_args: str,
    message: str,
) -> None:
    (tmp_path / "columns.jsonl").write_text('{"prompt": "a", "chosen": "b"}\n')
    names = {"s": strong, "w": weak, "c": tmp_path / "columns.jsonl"}
    result = commands.drsow(
        *("eval", "--model", "drsow", "--model_args", model_args.format(**names)),
        *("--tasks", "preference", "--metadata", metadata_argument(names["c"])),
    )
    # The interpreter prints what the exit carries, and ends with status 1.
    assert isinstance(result.exception, SystemExit)
    line = str(result.exception.code)
    assert line.startswith("Error: ") and message in line and "\n" not in line
    assert "Traceback" not in result.stderr and "Loading weights" not in result.stderr


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = (
    *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launch", "command", "placed"),
    [
        (TORCHRUN, "helpers.ended_ranks", {}),
        (ACCELERATE, "drsow_plugin.cli", {"strong_device": "cpu", "weak_device_map": "auto"}),
    ],
    ids=["torchrun", "accelerate, each model somewhere else"],
)
def test_two_processes_give_what_one_gives(
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strong: str,
    weak: str,
    launch: tuple[str, ...],
    command: str,
    placed: dict[str, Any],
) -> None:
    rows = [
        {"prompt": f"Question {i}?", "chosen": f"Yes, {i}.", "rejected": "No. " * (i % 4)}
        for i in range(7)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, here = (
        run(
            DrSoWLM(strong=strong, weak=weak, weak_template="none", **options),
            ["preference"],
            metadata={"data": str(data)},
            log_samples=True,
        )
        for options in ({}, placed)
    )
    arguments = lm_eval_args(strong, weak, data, tmp_path / "two")
    arguments[3] += "".join(f",{name}={value}" for name, value in placed.items())
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    status, _, stderr = call(sys.executable, "-m", *launch, "-m", command, "eval", *arguments)
    assert status == 0, stderr
    if command == "helpers.ended_ranks" and sys.platform == "linux":
        # One that still lets go of a tensor after the interpreter ended the process with SIGABRT.
        assert len(re.findall(r"at work: \['[^]]*gloo", stderr)) == 2, stderr
        assert re.findall(r"at the end: (.*)", stderr) == ["[]", "[]"]
    two = only_results(tmp_path / "two")
    (samples,) = (tmp_path / "two").glob("*/samples_*.jsonl")
    lines = map(json.loads, samples.read_text(encoding="utf-8").splitlines())
    margins = {line["doc_id"]: line["margin"] for line in lines}
    assert sorted(margins) == list(range(7))
    for rank in () if NEXT else (0, 1):
        assert f"Building contexts for preference on rank {rank}" in stderr
    info = two["config"]["drsow"]  # type: ignore[index]
    assert info["responses_scored"] == 16  # 7 pairs, and one that lm-eval repeats as padding
    own = "cpu:0"  # what accelerate gives each process
    strong_at, weak_at = placed.get("strong_device", own), placed.get("weak_device_map", own)
    assert info["devices"] == {"strong": strong_at, "weak": weak_at}
    for sample, other in zip(
        one["samples"]["preference"], here["samples"]["preference"], strict=True
    ):
        assert sample["margin"] == pytest.approx(margins[sample["doc_id"]], abs=1e-5)
        assert sample["margin"] == pytest.approx(other["margin"], abs=1e-5)
    for metric in ("acc,none", "acc_longer,none", "ties,none", "sample_len"):
        got = two["results"]["preference"][metric]  # type: ignore[index]
        assert got == one["results"]["preference"][metric] == here["results"]["preference"][metric]


def test_help_is_there() -> None:
    status, stdout, _ = drsow(sys.executable, "--help")
    assert status == 0
    assert all(name in stdout for name in ("eval", "enable", "disable", "status"))
    listed = " ".join(stdout.partition("Commands:")[2].split())
    assert "exit status 3 where one is broken." in listed and "..." not in listed
