"""Make the rows of the mini recipe from hh-rlhf's helpful pairs (MIT): short ones, in four files.

Usage: python recipes/mini/make_rows.py HELPFUL.jsonl.gz

HELPFUL has prompt (messages), chosen and rejected. No first message of a conversation is in two of
the files, and which file a row goes into depends on that message alone.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CHARACTERS = 300  # of a whole prompt, and of a response
QUESTION = 120  # characters of a prompt that is answered
PAIRS = {"held_out_pairs": 100, "human": 120, "judge": 260}
PROMPTS = 168


def first_message(row: dict[str, Any]) -> str:
    """Return what a conversation begins with."""
    return str(row["prompt"][0]["content"])


def is_short(row: dict[str, Any]) -> bool:
    """Return whether a pair is cheap to train on."""
    prompt = sum(len(message["content"]) for message in row["prompt"])
    longest = max(len(row["chosen"]), len(row["rejected"]))
    return prompt <= CHARACTERS and 0 < longest <= CHARACTERS and row["chosen"] != row["rejected"]


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Write a file of rows, and say how many."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (FOLDER / f"{name}.jsonl").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{name}.jsonl: {len(rows)} rows\n")


def main(path: str) -> None:
    """Write the four files."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    read.sort(key=lambda row: hashlib.sha256(first_message(row).encode()).hexdigest())
    short = [row for row in read if is_short(row)]
    taken: set[str] = set()
    for name, count in PAIRS.items():
        rows = []
        while len(rows) < count:
            row = short.pop(0)
            if first_message(row) not in taken:
                rows.append({key: row[key] for key in ("prompt", "chosen", "rejected")})
        taken |= {first_message(row) for row in rows}
        write(name, rows)
    questions = [
        first_message(row)
        for row in read
        if len(row["prompt"]) == 1 and len(first_message(row)) <= QUESTION
    ]
    fresh = [text for text in dict.fromkeys(questions) if text not in taken]
    write("prompts", [{"prompt": text} for text in fresh[:PROMPTS]])


if __name__ == "__main__":
    main(sys.argv[1])
