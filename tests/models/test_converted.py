from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers import tiny_gguf

from drsow_plugin import ConfigError, DrSoW
from drsow_plugin.models import converted, sources

PROMPTS, RESPONSES = ["Write a number."] * 2, ["It is one.", "Never."]


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.save(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("DRSOW_CACHE", str(folder))
    return folder


def open_pair(path: Path) -> DrSoW:
    return DrSoW(strong=str(path), weak=str(path), weak_template="none")


def rewards(path: Path) -> list[float | None]:
    return [r.reward for r in open_pair(path).score(PROMPTS, RESPONSES)]


def copies(cache: Path) -> dict[str, Path]:
    return {f.name.rpartition("-")[2]: f for f in (cache / "converted").iterdir() if f.is_dir()}


def test_a_gguf_file_is_parsed_once_in_its_life(
    gguf_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, fingerprint = rewards(gguf_file), open_pair(gguf_file).fingerprint
    assert sorted(copies(cache)) == ["config", "model", "tokenizer"]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the GGUF file was parsed again")

    monkeypatch.setattr("gguf.GGUFReader", refuse)
    assert rewards(gguf_file) == first
    assert open_pair(gguf_file).fingerprint == fingerprint


def test_a_copy_is_the_model_that_transformers_reads(gguf_file: Path, cache: Path) -> None:
    folder, name = gguf_file.parent, gguf_file.name
    rewards(gguf_file)
    where = copies(cache)
    direct = tf.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    copied = tf.AutoModelForCausalLM.from_pretrained(where["model"], dtype=torch.float32)
    assert direct.state_dict().keys() == copied.state_dict().keys()
    for key, value in direct.state_dict().items():
        assert torch.equal(value, copied.state_dict()[key]), key
    theirs = tf.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    ours = tf.AutoTokenizer.from_pretrained(where["tokenizer"])
    assert theirs.backend_tokenizer.to_str() == ours.backend_tokenizer.to_str()
    assert theirs.chat_template == ours.chat_template
    assert theirs.special_tokens_map == ours.special_tokens_map


def test_rewards_and_fingerprint_are_those_without_copies(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied, fingerprint = rewards(gguf_file), open_pair(gguf_file).fingerprint
    for module in ("drsow_plugin.models.converted", "drsow_plugin.models.weights"):
        monkeypatch.setattr(f"{module}.loads_fast", lambda side, config, source, part: source)
    assert rewards(gguf_file) == copied
    assert open_pair(gguf_file).fingerprint == fingerprint


@pytest.mark.fault(
    "shard",
    "the converted copy of a GGUF file is damaged",
    "it is made again; the rewards are the same",
)
@pytest.mark.parametrize("part", ["config", "model", "tokenizer"])
def test_a_damaged_copy_is_made_again(gguf_file: Path, cache: Path, part: str) -> None:
    first = rewards(gguf_file)
    file = max(copies(cache)[part].iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    assert rewards(gguf_file) == first
    assert file.read_bytes() != bytes(content)


def test_another_file_of_the_same_name_gets_copies_of_its_own(tmp_path: Path) -> None:
    path = tiny_gguf.save(tmp_path / "tiny.gguf", seed=1)
    first = rewards(path)
    tiny_gguf.save(path, seed=2)
    assert rewards(path) != first


def test_a_file_that_lacks_weights_is_refused_and_not_kept(tmp_path: Path, cache: Path) -> None:
    path = tiny_gguf.save(tmp_path / "tiny.gguf", leave_out="blk.1.ffn_up")
    with pytest.raises(ConfigError, match=r"lacks 1 weights of a LlamaForCausalLM"):
        rewards(path)
    assert "model" not in copies(cache)


@pytest.mark.fault(
    "model", "a GGUF file changes while it is converted", "one line; no copy is kept"
)
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_gguf.save(tmp_path / "tiny.gguf", seed=1)
    write = converted._WRITERS["model"]

    def overwrite(source: sources.Source, into: Path) -> None:
        tiny_gguf.save(path, seed=2)
        write(source, into)

    monkeypatch.setitem(converted._WRITERS, "model", overwrite)
    with pytest.raises(ConfigError, match="changed while it was read"):
        rewards(path)
    assert "model" not in copies(cache)


@pytest.mark.fault(
    "folder",
    "there is no cache for the copy of a GGUF file",
    "the file itself is read, with a warning; the rewards are the same",
)
def test_without_a_cache_the_file_itself_is_read(
    gguf_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = rewards(gguf_file)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "file"))
    assert rewards(gguf_file) == first
    assert "no copy is kept" in caplog.text


def test_the_weights_of_a_large_file_are_not_copied(
    gguf_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rewards(gguf_file)
    monkeypatch.setenv("DRSOW_CACHE", str(cache / "other"))
    monkeypatch.setattr(converted, "_MAX_FILE", 100)
    assert rewards(gguf_file) == first
    assert sorted(copies(cache / "other")) == ["config", "tokenizer"]
