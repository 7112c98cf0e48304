"""Writes the rows of the study of ten models, and train.jsonl, what its models are trained on.

    python examples/study/make_rows.py helpful.jsonl.gz harmless.jsonl.gz

The files are Anthropic's hh-rlhf (Bai et al. 2022, MIT) as JSON Lines of prompt, chosen and
rejected, gzipped or not. The rows of the study are those of LLMBar, as llmbar.jsonl, and the first
--pairs of each file that may be studied, as hh-rlhf.jsonl. Rows of more than --max-length tokens
(prompt and the longer response, as the demo model reads them) are left out everywhere.
Conversations whose hash of the first message is among the upper 30 of 100 are never trained on,
and the others never studied.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from drsow_plugin import LanguageModel, TokenPair
from drsow_plugin.models.row import ModelRow
from drsow_plugin.progress import tell
from drsow_plugin.prompts import as_preference

TRAINED_ON = 70  # of 100


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs=2, type=Path, help="hh-rlhf: helpful, harmless")
    parser.add_argument("--base", default="demo", help="the model whose tokens count [demo]")
    parser.add_argument("--output", default=".", type=Path, help="folder for the files [.]")
    parser.add_argument("--pairs", type=int, default=100, help="of each file, at most [100]")
    parser.add_argument("--max-length", type=int, default=96, help="in tokens [96]")
    options = parser.parse_args()
    model = LanguageModel(options.base, overflow="skip", max_length=options.max_length)
    files = {"llmbar.jsonl": [row for row in llmbar() if fits(model, row)]}
    files |= {"hh-rlhf.jsonl": [], "train.jsonl": []}
    for path, subset in zip(options.data, ("hh-helpful", "hh-harmless"), strict=True):
        short = [row for row in read(path, subset) if fits(model, row)]
        held = [row for row in short if percent(row) >= TRAINED_ON]
        files["hh-rlhf.jsonl"] += held[: options.pairs]
        files["train.jsonl"] += [row for row in short if percent(row) < TRAINED_ON]
        tell(f"{subset}: {len(held)} rows fit that may be studied")
    options.output.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (options.output / name).write_text(text, encoding="utf-8")
        tell(f"{name}: {len(rows)} rows")


def llmbar() -> Iterator[dict[str, Any]]:
    """Yield the 419 pairs of LLMBar, which the package holds."""
    file = resources.files("drsow_plugin.tasks") / "llmbar.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        asked = [{"role": "user", "content": row["prompt"]}]  # as the other files have it
        yield {**row_of(row, row["subset"]), "prompt": asked}


def read(path: Path, subset: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, with the name of their subset."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield row_of(json.loads(line), subset)


def row_of(row: Mapping[str, Any], subset: str) -> dict[str, Any]:
    """Return a row with the columns that all files have."""
    return {**{key: row[key] for key in ("prompt", "chosen", "rejected")}, "subset": subset}


def fits(model: LanguageModel, row: dict[str, Any]) -> bool:
    """Return whether a row can be scored without cutting it."""
    pair = as_preference(row, "a row")
    rows: Sequence[ModelRow] = [
        ModelRow(pair.prompt, text, "") for text in (pair.chosen, pair.rejected)
    ]
    return all(isinstance(t, TokenPair) and not t.problem for t in model.tokenize(rows))


def percent(row: dict[str, Any]) -> int:
    """Return a number from 0 to 99 that all rows of one conversation share."""
    first = str(as_preference(row, "a row").prompt[0]["content"])
    return int(hashlib.sha256(first.encode()).hexdigest(), 16) % 100


if __name__ == "__main__":
    main()
