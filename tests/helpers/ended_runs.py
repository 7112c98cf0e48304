"""Starts commands, ends them at random moments, and starts them again. Run by test_faults.

python -m helpers.ended_runs KIND STRONG WEAK FOLDER SEED    # prints an outcome in JSON a line
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import datasets
import psutil
import torch

from drsow_plugin import DrSoW
from drsow_plugin.cli import main as drsow
from helpers import forks
from helpers.commands import write
from helpers.preferences import WORDS
from helpers.serving import ask
from helpers.studies import study_rows

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
POINTS = 3
"""Of each signal."""
SHARD_ROWS, ROWS, ROWS_OF_WORKERS = 4, 40, 120
"""Workers are ended before a third of their work is done, however fast the machine is."""


def candidates(count: int) -> list[dict[str, Any]]:
    texts = [[f"{word} {n}" for word in WORDS] for n in range(count)]
    return [{"prompt": f"Question {n}?", "responses": texts[n]} for n in range(count)]


def started(arguments: list[object], stderr: Path) -> int:
    """Run a command in a process of its own; return its number."""
    child = forks.fork()
    if child:
        return child
    status = 70
    try:
        with stderr.open("w") as file:
            os.dup2(file.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        drsow.main([str(argument) for argument in arguments])
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a process; return its exit status, negative for that of a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rows_of(out: Path) -> Any:
    return datasets.Dataset.from_parquet([str(p) for p in sorted(out.glob("data/*"))]).to_list()


def figures_of(out: Path) -> Any:
    values = json.loads((out / "study.json").read_text())
    for model in values["models"]:
        del model["scored"]
    return values


def left_in(folder: Path) -> list[str]:
    """Return what is there of work that is not whole; rows of a report are named by it."""
    names = (path.name for path in folder.rglob("*"))
    return sorted(name for name in names if name.startswith(("writing-", ".drsow", ".out", "tmp")))


def repeat(
    command: Callable[[Path], list[object]], read: Callable[[Path], Any], root: Path, seed: int
) -> None:
    """End a command again and again, each time in a folder of its own, and let it go on."""
    whole, again = root / "whole", root / "again"
    drsow.main([*map(str, command(whole))], standalone_mode=False)  # which imports what it needs
    expected, began = read(whole / "out"), time.monotonic()
    assert ended(started(command(again), root / "stderr")) == 0, (root / "stderr").read_text()
    duration = time.monotonic() - began
    assert read(again / "out") == expected
    chance = random.Random(seed)
    for number in SIGNALS:
        for point in range(POINTS):
            folder, moment = root / f"{number.name}-{point}", chance.uniform(0, duration)
            child = started(command(folder), root / "stderr")
            time.sleep(moment)
            os.kill(child, number)
            status, said = ended(child), (root / "stderr").read_text()
            resumed = ended(started(command(folder), root / "stderr"))
            tell(
                signal=number.name,
                moment=f"{moment:.3f} of {duration:.3f} s",
                status=status,
                said=said,
                resumed=resumed,
                left=left_in(folder),
                same=resumed == 0 and read(folder / "out") == expected,
            )


def tell(**outcome: object) -> None:
    sys.stdout.write(json.dumps(outcome) + "\n")
    sys.stdout.flush()


def workers_of(child: int) -> list[psutil.Process]:
    """Return the processes that a process has started to score in."""
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(child).children(recursive=True)
        return [one for one in found if "spawn_main" in " ".join(one.cmdline())]
    return []


def end_among_workers(command: list[object], folder: Path, seed: int) -> None:
    """End a run in two processes, or one of these, at a random moment of their work."""
    chance = random.Random(seed)
    alone = [*command, folder / "alone", "--cache-dir", folder / "c"]
    drsow.main([*map(str, alone)], standalone_mode=False)
    expected = [row["chosen"] for row in rows_of(folder / "alone")]
    for is_worker in (True, False):
        for number in (signal.SIGKILL, signal.SIGTERM):
            out = folder / f"{number.name}-{is_worker}"
            run = [*command, out, "--cache-dir", out.with_suffix(".c")]
            child = started([*run, "--num-proc", "2"], folder / "stderr")
            while len(workers := workers_of(child)) < 2:
                time.sleep(0.01)
            kept = chance.randrange(0, ROWS_OF_WORKERS // SHARD_ROWS // 3)  # files of scores
            while len(list(out.with_suffix(".c").glob("scores/*/*.parquet"))) < kept:
                time.sleep(0.01)
            os.kill(chance.choice(workers).pid if is_worker else child, number)
            status, said = ended(child), (folder / "stderr").read_text()
            _, alive = psutil.wait_procs(workers, timeout=30)
            resumed = ended(started(run, folder / "stderr"))
            tell(
                **{"signal": number.name, "worker": is_worker, "moment": f"{kept} files"},
                **{"status": status, "said": said, "alive": len(alive), "resumed": resumed},
                left=left_in(out),
                same=resumed == 0 and [row["chosen"] for row in rows_of(out)] == expected,
            )


def end_servers(models: list[object], root: Path, seed: int) -> None:
    """End a server at random moments while a client asks, and start it again."""
    rows = {"prompts": ["Name a prime."] * 60, "responses": [f"{n} is one." for n in range(60)]}
    expected = [r.reward for r in DrSoW(str(models[1]), str(models[3])).score(**rows)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    chance, url = random.Random(seed), f"http://127.0.0.1:{port}/v1/rewards"
    command = ["serve", *models, "--port", port]
    for number in SIGNALS:
        for point in range(POINTS):
            answer = root / f"{number.name}-{point}"
            client = forks.fork()
            if client == 0:
                insist(url, rows, answer, 10)
                os._exit(0)
            moment = chance.uniform(0, 3)
            child = started(command, root / "stderr")
            time.sleep(moment)
            os.kill(child, number)
            status, said = ended(child), (root / "stderr").read_text()
            child = started(command, root / "stderr")
            ended(client)
            insist(url, rows, answer, 1)
            got = json.loads(answer.read_text())
            os.kill(child, signal.SIGTERM)
            tell(
                **{"signal": number.name, "moment": f"{moment:.3f} s", "status": status},
                **{"said": said, "resumed": ended(child), "left": []},
                same=all(abs(a - b) < 1e-4 for a, b in zip(got, expected, strict=True)),
            )


def insist(url: str, rows: dict[str, list[str]], answer: Path, times: int) -> None:
    """Ask as trainers do, again and again where nobody answers; keep the last answer."""
    got = 0
    while got < times:
        with suppress(OSError, http.client.HTTPException):
            found = ask(url, rows)
            if found.code == 200:
                answer.write_text(json.dumps([row["reward"] for row in found.body["rewards"]]))
                got += 1
                continue
        time.sleep(0.05)


def main(kind: str, strong: str, weak: str, root: Path, seed: int) -> None:
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    pair: list[object] = ["--strong", strong, "--weak", weak]
    count = ROWS_OF_WORKERS if kind == "worker" else ROWS
    rows = write(root / "rows.jsonl", study_rows(ROWS) if kind == "study" else candidates(count))
    label = ["annotate", rows]
    size: list[object] = [*pair, "--shard-rows", SHARD_ROWS]
    if kind == "annotate":
        repeat(lambda f: [*label, f / "out", *size, "--cache-dir", f / "c"], rows_of, root, seed)
    if kind == "study":
        models = ["--model", f"a={strong}", "--model", f"b={weak}", "--cache-dir"]
        repeat(lambda f: ["study", rows, f / "out", *models, f / "c"], figures_of, root, seed)
    if kind == "merge":
        for shard in ("1/2", "2/2"):
            made = [*label, root / "out", *size, "--cache-dir", root / "c", "--shard", shard]
            drsow.main([*map(str, made)], standalone_mode=False)

        def merge(folder: Path) -> list[object]:
            if not folder.is_dir():
                shutil.copytree(root / "out.shards", folder / "out.shards")
            return ["merge", folder / "out"]

        repeat(merge, rows_of, root, seed)
    if kind == "worker":
        end_among_workers(["annotate", *size, rows], root, seed)
    if kind == "serve":
        end_servers(pair, root, seed)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
