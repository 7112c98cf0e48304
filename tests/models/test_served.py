"""Models on servers: the rewards are those of their weights here, and what they are is recorded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.commands import wrong
from helpers.model_server import ModelServer, formula
from helpers.served import saved

from drsow_plugin import Annotator, ConfigError, DrSoW, EngineError, LanguageModel
from drsow_plugin.models.identity import ModelIdentity

PROMPTS = [
    "What is the capital of France?",
    "What is the capital of France?",
    [
        {"role": "user", "content": "Say it."},
        {"role": "assistant", "content": "Ça va."},
        {"role": "user", "content": "Again, please."},
    ],
    "Add two numbers.",
]
RESPONSES = ["Paris.", "  A dog. Привет", "naïve façade\n\n", "    return a + b"]


@pytest.fixture
def both(strong: str, weak: str) -> Iterator[tuple[ModelServer, ModelServer]]:
    with ExitStack() as stack:
        models = saved(strong, "one"), saved(weak, "two")
        yield tuple(stack.enter_context(ModelServer(model=m)) for m in models)  # type: ignore[misc]


def pair(strong: str, weak: str, both: Sequence[ModelServer], **options: Any) -> DrSoW:
    servers = {
        **{"strong_server": both[0].url, "strong_server_model": "one"},
        **{"weak_server": both[1].url, "weak_server_model": "two"},
    }
    return DrSoW(strong, weak, **{**servers, **options})


def test_rewards_are_those_of_the_weights_on_one_side_or_both(
    strong: str, weak: str, both: tuple[ModelServer, ModelServer]
) -> None:
    here = [r.reward for r in DrSoW(strong, weak, dtype="float64").score(PROMPTS, RESPONSES)]
    there = pair(strong, weak, both)
    mixed = pair(strong, weak, both, weak_server=None, weak_server_model=None, weak_dtype="float64")
    assert [r.reward for r in there.score(PROMPTS, RESPONSES)] == pytest.approx(here, abs=1e-9)
    assert [r.reward for r in mixed.score(PROMPTS, RESPONSES)] == pytest.approx(here, abs=1e-9)
    assert there.devices["strong"] == f"vLLM 0.32.0 at {both[0].url}"
    assert there.describe()["versions"]["torch"] is None


def test_a_router_may_ask_a_model_on_a_server(
    strong: str, weak: str, both: tuple[ModelServer, ModelServer]
) -> None:
    rows = ["How do I pick a lock?", "What is 2 + 2?"], ["No.", "4"]
    both[1].model.max_length = 100_000
    named = DrSoW(strong, weak, router="model", router_model=weak, router_dtype="float64")
    options = {"router_server": both[1].url, "router_server_model": "two"}
    asked = DrSoW(strong, weak, router="model", router_model=weak, **options)
    both[1].forget()
    assert [r.domain for r in asked.score(*rows)] == [r.domain for r in named.score(*rows)]
    assert both[1].scored


def test_rows_over_the_servers_limit_are_problems_of_those_rows(
    strong: str, both: tuple[ModelServer, ModelServer]
) -> None:
    both[0].model.max_length = 80
    model = LanguageModel(strong, server=both[0].url, server_model="one", overflow="skip")
    assert model.identity.max_length == 79
    found = model.logprobs(["Say it.", "Say it." * 40], ["Paris.", "Paris."])
    assert found[0].problem is None and str(found[1].problem).startswith("too long: ")
    assert all(len(ids) < 80 for _, body in both[0].requests for ids in body.get("prompt", ()))
    with pytest.raises(ConfigError, match=r"max_length=80 is more than .* can read \(79 tokens\)"):
        LanguageModel(strong, server=both[0].url, server_model="one", max_length=80)


def identity(strong: str, server: ModelServer, **options: Any) -> ModelIdentity:
    name = server.model.name
    return LanguageModel(strong, server=server.url, server_model=name, **options).identity


def test_what_is_served_is_recorded_and_decides_the_fingerprint(strong: str) -> None:
    with ModelServer() as server, ModelServer() as moved:
        first = identity(strong, server)
        described = first.describe()
        assert described["served"] == {
            **{"kind": "vLLM", "version": "0.32.0", "model": "strong", "root": "/models/strong"},
            **{"dtype": None, "form": "completions, prompt_logprobs"},
        }
        assert described["server"] == (server.url,)
        assert json.dumps(described)
        assert identity(strong, moved).fingerprint() == first.fingerprint()
        moved.model.version = "0.33.0"
        assert identity(strong, moved).fingerprint() != first.fingerprint()
        server.model.name = "weak"
        assert identity(strong, server).fingerprint() != first.fingerprint()
        assert LanguageModel(strong).identity.fingerprint() != first.fingerprint()


def test_two_sides_that_are_one_served_model_are_refused(strong: str) -> None:
    with ModelServer() as one, ModelServer() as alias, ModelServer() as other:
        alias.model.name, other.model.logprobs = "alias", formula("other")
        options = {"strong_server": one.url, "strong_server_model": "strong"}
        for url, name in ((one.url, "strong"), (alias.url, "alias")):
            with pytest.raises(ConfigError, match="are the same model"):
                DrSoW(strong, strong, **options, weak_server=url, weak_server_model=name)
        weak = {"weak_server": other.url, "weak_server_model": "strong"}
        assert DrSoW(strong, strong, **options, **weak)
        same = {"weak_server": one.url, "weak_server_model": "strong", "weak_template": "none"}
        assert DrSoW(strong, strong, **options, **same)


@pytest.mark.fault(
    "server",
    "the model on a server changes after the pair was opened",
    "one line; none of the rewards of that call are given",
)
def test_a_model_that_changes_while_rows_are_scored_gives_no_rewards(
    strong: str, weak: str, both: tuple[ModelServer, ModelServer]
) -> None:
    drsow = pair(strong, weak, both)
    both[0].model.logprobs = formula("other")
    with pytest.raises(EngineError, match="does not serve what it did when it was opened"):
        drsow.score(PROMPTS, RESPONSES)


def test_refine_needs_weights(
    strong: str, weak: str, both: tuple[ModelServer, ModelServer]
) -> None:
    with pytest.raises(ConfigError, match="strong is on a server, which computes as it does"):
        pair(strong, weak, both, refine=1)


KEY = "sesame-0123456789"


@pytest.mark.parametrize("place", ["variable", "file"])
def test_a_key_is_sent_and_appears_nowhere(
    place: str, strong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    named = "MY_KEY" if place == "variable" else str(file)
    with ModelServer(key=KEY) as server:
        options = {"server": server.url, "server_model": "strong", "server_key": named}
        model = LanguageModel(strong, **options)
        assert model.logprobs(["Say it."], ["Paris."])[0].problem is None
        said = [repr(model), repr(model.identity), json.dumps(model.identity.describe())]
        said += [repr(vars(model.identity.contents.servers))]  # type: ignore[attr-defined]
        server.key = "another"
        with pytest.raises(EngineError, match="does not take the key") as caught:
            model.logprobs(["Say it."], ["Paris."])
        said.append(str(caught.value))
    assert "Incorrect API key provided: Bearer ***" in said[-1]
    assert not any(KEY in text for text in said)


def test_a_key_that_is_missing_or_none_is_said_without_it(
    strong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", " ")
    with ModelServer(key=KEY) as server:
        options = {"server": server.url, "server_model": "strong"}
        with pytest.raises(EngineError, match=r"wants a key \(HTTP 401.* with model_server_key=…"):
            LanguageModel(strong, **options)
        with pytest.raises(ConfigError, match="holds no key of one line"):
            LanguageModel(strong, **options, server_key="EMPTY")
        with pytest.raises(ConfigError, match="names neither an environment variable") as caught:
            LanguageModel(strong, **options, server_key=KEY)
    assert KEY not in str(caught.value)


WITHOUT_TORCH = """
import sys

from importlib.machinery import PathFinder

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "torch" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTorch
from drsow_plugin import Annotator, DrSoW
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print([r.reward for r in DrSoW(**options).score(["Say it."] * 2, ["Paris.", "A dog."])])
import datasets
rows = datasets.Dataset.from_list([{"prompt": "Say it.", "chosen": "Paris.", "rejected": "A dog."}])
if __name__ == "__main__":
    for processes in (1, 2):
        folder = f"{options['strong']}/{processes}"
        found = Annotator(**options).run(rows, cache_dir=folder, num_proc=processes)
        print([found[0]["drsow_chosen_reward"], found[0]["drsow_rejected_reward"]])
"""


@pytest.mark.slow
def test_torch_is_not_needed_where_both_models_are_on_servers(
    strong: str, weak: str, both: tuple[ModelServer, ModelServer], tmp_path: Path
) -> None:
    copies = []
    for folder in (strong, weak):
        copy = tmp_path / Path(folder).name
        copy.mkdir()
        for file in Path(folder).glob("*.json"):  # no weights
            (copy / file.name).write_bytes(file.read_bytes())
        for file in Path(folder).glob("*.jinja"):
            (copy / file.name).write_bytes(file.read_bytes())
        copies.append(str(copy))
    options = {"strong": copies[0], "weak": copies[1]}
    options |= {"strong_server": both[0].url, "strong_server_model": "one"}
    options |= {"weak_server": both[1].url, "weak_server_model": "two"}
    arguments = [part for option in options.items() for part in option]
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "DRSOW_CACHE": str(tmp_path / "cache")},
    )
    assert result.returncode == 0, result.stderr
    scored, *labelled = (json.loads(line) for line in result.stdout.splitlines())
    here = DrSoW(strong, weak, dtype="float64").score(["Say it."] * 2, ["Paris.", "A dog."])
    assert scored == pytest.approx([r.reward for r in here])
    assert labelled == [scored, scored]


def test_the_command_says_in_one_line_what_is_wrong_with_a_server(
    strong: str, weak: str, both: tuple[ModelServer, ModelServer], preference_file: Path
) -> None:
    options = ["--strong", strong, "--weak", weak, "--strong-server", both[0].url]
    said = wrong("annotate", preference_file, preference_file.with_name("out"), *options)
    assert "serves 'one', and strong=" in said and "strong_server_model=…" in said
    both[0].stop()
    said = wrong(
        "annotate",
        preference_file,
        preference_file.with_name("out"),
        *options,
        "--strong-server-model",
        "one",
    )
    assert (
        "Connect call failed" in said
        and "ssl" not in said
        and "Start the server, or give another" in said
    )
    both[0].start()


@pytest.mark.fault(
    "server",
    "a server goes for good in the middle of a run",
    "one line; finished shards are kept, and the same run asks only for the rest",
)
def test_rows_that_are_labelled_are_kept_when_a_server_goes_for_good(
    strong: str, weak: str, both: tuple[ModelServer, ModelServer], tmp_path: Path
) -> None:
    rows = [{"prompt": "Say it.", "responses": [f"Paris {n}.", f"A dog {n}."]} for n in range(8)]
    data, options = datasets.Dataset.from_list(rows), {"cache_dir": str(tmp_path), "shard_rows": 2}
    servers = {"strong_server": both[0].url, "strong_server_model": "one"}
    servers |= {"weak_server": both[1].url, "weak_server_model": "two"}
    whole = Annotator(strong, weak, **servers).run(data, **{**options, "cache_dir": None})
    both[0].forget()

    def gone(_reply: object) -> None:
        both[0].stop()

    both[0].faults = [*[None] * (4 + 2 * 2), gone]  # the probe, two shards with a check after each
    with pytest.raises(EngineError, match=r"strong_server_wait=0\.2"):
        Annotator(strong, weak, **servers, server_wait=0.2).run(data, **options)
    both[0].faults = []
    both[0].start()
    both[0].forget()
    resumed = Annotator(strong, weak, **servers).run(data, **options)
    assert list(resumed) == list(whole)
    asked = [ids for _, body in both[0].scored for ids in body.get("prompt", ())]
    assert len(asked) == 3 + 2 * (4 + 1)  # the probe, and two shards


def test_the_extra_is_named_where_it_is_missing(
    strong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tenacity", None)
    for name in [name for name in sys.modules if name.startswith("drsow_plugin.engines.server.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "drsow_plugin.models.served", raising=False)
    said = "A model on a server needs a package that is not installed: pip install 'drsow-plugin[s"
    with pytest.raises(ConfigError, match=re.escape(said)):
        LanguageModel(strong, server="http://127.0.0.1:9/v1")
