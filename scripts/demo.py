"""The demo: Dr.SoW and the same model's likelihood on LLMBar-Natural, both through lm-eval.

Usage: python scripts/demo.py OUTPUT_FOLDER
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from drsow_plugin.models.demo import demo_model

TASK = "llmbar_natural"


def evaluate(model: str, model_args: str, output: Path, *more: str) -> dict[str, Any]:
    """Run lm-eval, show its command, and return the task's results."""
    command = ["drsow", "eval", "--model", model, "--model_args", model_args]
    command += ["--tasks", TASK, "--output_path", str(output), "--log_samples", *more]
    print(f"\n$ {' '.join(command)}", flush=True)
    started = time.monotonic()
    before = set(output.glob("**/results_*.json"))
    program = str(Path(sys.executable).with_name("drsow"))
    subprocess.run([program, *command[1:]], check=True)  # noqa: S603 (words of this script)
    (file,) = set(output.glob("**/results_*.json")) - before
    results = json.loads(file.read_text(encoding="utf-8"))
    row: dict[str, Any] = results["results"][TASK]
    row["seconds"] = time.monotonic() - started
    return row


def main() -> None:
    """Run both evaluations and print their accuracies side by side."""
    output = Path(sys.argv[1])
    gguf = demo_model()
    pair = evaluate("drsow", "strong=demo,weak=demo,weak_template=none", output / "drsow")
    alone = evaluate(
        "hf",
        f"pretrained={gguf.parent},gguf_file={gguf.name},dtype=float32",
        output / "likelihood",
        *("--apply_chat_template", "--batch_size", "8", "--device", "cpu"),
    )
    print(f"\n{TASK}: {pair['sample_len']} pairs; accuracy and its standard error")
    rows = (
        ("Dr.SoW (SmolLM2-135M-Instruct over itself as a plain LM)", pair, "acc"),
        ("likelihood of SmolLM2-135M-Instruct alone (lm-eval's hf)", alone, "acc"),
        ("pick the longer response", pair, "acc_longer"),
    )
    for name, row, metric in rows:
        accuracy, error = row[f"{metric},none"], row[f"{metric}_stderr,none"]
        print(f"  {name:<60} {100 * accuracy:5.1f} % +- {100 * error:.1f}")
    print(f"took {pair['seconds']:.0f} s and {alone['seconds']:.0f} s; results: {output}/")


if __name__ == "__main__":
    main()
