"""RM-Bench: its matrix of styles, its means of domains, and files of other versions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import fake_pair
from helpers.harness import Scorer, run

from drsow_plugin import DataError, DrSoWLM
from drsow_plugin.harness.benchmarks.rm_bench import SIZES, count
from drsow_plugin.harness.subsets import Partial


def row(domain: str, number: int, chosen: list[str], rejected: list[str]) -> dict[str, Any]:
    prompt = f"{domain} {number}"
    return {
        "id": number,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "domain": domain,
    }


def save(rows: Iterable[dict[str, Any]], folder: Path) -> dict[str, str]:
    path = folder / "rm_bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": str(path)}


def test_the_matrix_of_styles_is_the_one_worked_out_by_hand() -> None:
    # Won, by chosen style (row) and rejected style (column); the 2 = 2 in the middle is lost.
    #     1 > 0, 1 < 2, 1 < 4        2 > 0, 2 = 2, 2 < 4        5 > 0, 5 > 2, 5 > 4
    got = count({}, [1.0, 2.0, 5.0, 0.0, 2.0, 4.0])
    assert got == pytest.approx({"easy": 3 / 3, "normal": 2 / 3, "hard": 0, "score": 5 / 9})
    # Of another shape: the concise chosen one is above all, the others above none.
    got = count({}, [9.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert got == pytest.approx({"easy": 0, "normal": 1 / 3, "hard": 2 / 3, "score": 1 / 3})
    got = count({}, [9.0, 9.0, math.nan, 0.0, 0.0, 0.0])  # a missing reward loses its three
    assert got == pytest.approx({"easy": 1 / 3, "normal": 2 / 3, "hard": 1, "score": 2 / 3})


LONG, SHORT = ["aaaa", "bbbbb", "cccccc"], ["d", "ee", "fff"]
STYLED = ["d", "ffff", "hhhhhh"], ["e", "gggg", "iiiiii"]  # only a longer style wins


@pytest.mark.slow
def test_domains_weigh_the_same_whatever_their_sizes(tmp_path: Path) -> None:
    def responses(domain: str, n: int) -> tuple[list[str], list[str]]:
        if domain == "chat":
            return LONG, SHORT
        return STYLED if domain == "math" and n % 2 else (SHORT, LONG)

    names = {"safety": ("safety-refuse", "safety-response")}
    rows = [
        row(names.get(domain, (domain,) * 2)[n % 2], n, *responses(domain, n))
        for domain, size in SIZES.items()
        for n in range(size)
    ]
    results = run(Scorer(len), ["rm_bench"], metadata=save(rows, tmp_path))
    got = results["results"]["rm_bench"]
    odd = 264 / 529  # of math's prompts
    expected = {
        "chat/score": 1,
        "math/easy": odd,
        "math/normal": 0,
        "math/hard": 0,
        "math/score": odd / 3,
        "safety/score": 0,
        "easy": (1 + odd) / 4,
        "normal": 1 / 4,
        "hard": 1 / 4,
        "score": (1 + odd / 3) / 4,
        "score_longer": (1 + odd / 3) / 4,
    }
    assert {name: got[f"{name},none"] for name in expected} == pytest.approx(expected)
    assert not any(name.startswith("acc") for name in got)


def test_a_part_has_the_scores_of_its_domains(tmp_path: Path) -> None:
    lm = DrSoWLM(**fake_pair(router="column", max_length=4096))
    rows = [row("code", 1, LONG, SHORT), row("safety-refuse", 2, LONG, SHORT)]
    results = run(lm, ["rm_bench"], metadata=save(rows, tmp_path), log_samples=True)
    got = results["results"]["rm_bench"]
    assert isinstance(got["score,none"], Partial) and isinstance(got["hard,none"], Partial)
    for sample, prompt in zip(results["samples"]["rm_bench"], rows, strict=True):
        known = [sample["doc"]["domain"]] * 6
        rewards = lm.drsow.score([prompt["prompt"]] * 6, [*LONG, *SHORT], domains=known)
        expected = count({}, [reward.reward or 0.0 for reward in rewards])
        domain = prompt["domain"].partition("-")[0]
        assert got[f"{domain}/score,none"] == sample[f"{domain}/score"] == expected["score"]
    assert "chat/score,none" not in got
    domains = results["config"]["drsow"]["domains"]["domains"]
    assert {name: of["pairs"] for name, of in domains.items()} == {"reasoning": 9, "safety": 9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domain": "law"}, "row 0: 'law' is no subset of RM-Bench, which has chat, code, math"),
        ({"chosen": ["a", "b"]}, "one of each style, got 2 and 3. Give a copy of THU-KEG"),
        ({"chosen": "text"}, "row 0, chosen: a list of at least 1 responses is needed"),
        ({"rejected": ["a", None, "b"]}, "row 0, rejected, response 1: a response is a text"),
    ],
)
def test_a_file_of_another_version_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        rows = [{**row("chat", 1, LONG, SHORT), **change}]
        run(Scorer(len), ["rm_bench"], metadata=save(rows, tmp_path))


def test_a_file_of_one_domain_without_its_name_is_refused(tmp_path: Path) -> None:
    rows = [{key: v for key, v in row("chat", 1, LONG, SHORT).items() if key != "domain"}]
    with pytest.raises(DataError, match=r"no column 'domain'; .* all domains in one file"):
        run(Scorer(len), ["rm_bench"], metadata=save(rows, tmp_path))
