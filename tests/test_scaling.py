"""The table of costs is what its script computes, and that is the arithmetic it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import scaling

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"


def test_the_page_has_the_table_of_the_script() -> None:
    assert scaling.costs(scaling.Assumed()) in PAGE.read_text(encoding="utf-8")


def test_a_cost_is_the_work_over_the_speed_with_loading_and_whole_shards() -> None:
    given = scaling.Assumed(
        prompt=100, response=200, peak=1e15, mfu=0.5, price=2.0, memory=80e9, loading=1e9,
        starting=10.0, shard=100,
    )  # fmt: skip
    pair = scaling.Pair("10B", 10e9, in_turn=False)
    # Two models, 2 operations a parameter and token, 500 tokens: 2e13 a row, 25 rows a second.
    found = scaling.cost(pair, 4, given, rows=1000)
    assert pair.gpus(given) == 1 and found is not None
    assert found.rate == pytest.approx(4 * 25 * 3600)
    # 40 GB to load; 10 shards are 3 rounds of 4 s for 4 actors.
    assert found.hours * 3600 == pytest.approx(10 + 40 + 3 * 4)
    assert found.dollars == pytest.approx(62 / 3600 * 4 * 2)


def test_layers_over_gpus_compute_in_turn_and_too_few_gpus_hold_no_pair() -> None:
    given = scaling.Assumed()
    turns, together = (scaling.Pair("70B", 70e9, in_turn=in_turn) for in_turn in (True, False))
    assert turns.gpus(given) == together.gpus(given) == 4  # 280 GB, of which one takes 72
    assert together.rows_a_second(given) == pytest.approx(4 * turns.rows_a_second(given))
    assert scaling.cost(turns, 3, given) is None
