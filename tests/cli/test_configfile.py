"""Files of options, which others may have written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.commands import drsow, wrong

from drsow_plugin.bounded_yaml import MAX_DEPTH, load_yaml
from drsow_plugin.errors import DataError
from drsow_plugin.publishing import readme

CHAIN = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
CHAIN += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGED = "m0: &m0 {x: 1}\n"
MERGED += "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CHAIN, "aliases repeat more than 10,000 values, in line 4"),
        (MERGED, "aliases repeat more than 10,000 values, in line 4"),
        ("[" * 10_000, f"nested more than {MAX_DEPTH} deep"),
        ("a: &a [*a]", "inside of what it repeats"),
        ("a: 2026-13-01", "month must be"),
        ("a: !!bool maybe", "maybe"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
    ],
)
def test_a_file_that_explodes_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    message = wrong("annotate", "a.jsonl", "b", "--config", file)
    assert said in message and message.startswith(f"Error: --config {file} cannot be read: ")
    with pytest.raises(DataError, match=r"front matter of README\.md is no YAML") as caught:
        readme.check(f"---\n{text}\n---\n")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_honest_files_are_read_as_before() -> None:
    text = "base: &b {a: [1, 2.5, true, null, 2026-01-02, text]}\nmore: {<<: *b, c: *b}\n"
    text += "long:\n" + "".join(f"- {{name: n{n}, dtype: string}}\n" for n in range(2_000))
    assert load_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ("plugin: mine.py", "the plugin mine.py"),
        ("plugin: [a.b, mine.py]", "the plugin a.b, mine.py"),
        ("trust-remote-code: true", "of org/s and org/w (trust_remote_code)"),
        ("strong_trust_remote_code: 1", "of org/s (strong_trust_remote_code)"),
        ("weak_trust_remote_code: 'TRUE'", "of org/w (weak_trust_remote_code)"),
        ("router_trust_remote_code: true", "of org/r (router_trust_remote_code)"),
        ("allow-pickle: true", "pickled weights of org/s and org/w (allow_pickle)"),
        ("weak_allow_pickle: true", "pickled weights of org/w (weak_allow_pickle)"),
        ("attn_implementation: org/kernel", "the kernel org/kernel from the Hub"),
    ],
)
def test_what_code_a_file_would_run_is_named(tmp_path: Path, option: str, code: str) -> None:
    file, data = tmp_path / "theirs.yaml", tmp_path / "in.jsonl"
    file.write_text(f"strong: org/s\nweak: org/w\nrouter_model: org/r\nrouter: model\n{option}\n")
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    arguments = ("annotate", data, tmp_path / "out", "--config", file)
    message = wrong(*arguments)
    assert f"{file} would run code: " in message and code in message and "--allow-code" in message
    allowed = drsow(*arguments, "--allow-code").stderr
    assert f"drsow: --config {file} runs code: " in allowed and code in allowed


@pytest.mark.parametrize("command", ["annotate", "score", "route"])
def test_a_file_runs_code_only_where_the_command_line_says_so(
    tmp_path: Path, strong: str, weak: str, command: str
) -> None:
    file, data, plugin = (tmp_path / name for name in ("theirs.yaml", "in.jsonl", "mine.py"))
    plugin.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nraise ValueError('mine')")
    pair = "" if command == "route" else f"weak: {weak}\n"
    file.write_text(f"strong: {strong}\n{pair}router: keyword\nplugin: {plugin}\n")
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "c", "response": "d"}\n')
    output = [tmp_path / "out"] if command == "annotate" else []
    arguments = (command, data, *output, "--config", file)
    assert "would run code" in wrong(*arguments)
    assert not (tmp_path / "ran").exists()
    assert "ValueError: mine" in wrong(*arguments, "--allow-code")
    assert (tmp_path / "ran").exists()


def test_what_the_command_line_says_needs_no_leave(tmp_path: Path) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text(
        "plugin: theirs.py\nrouter: theirs\nrouter_trust_remote_code: false\nrouter_model: x\n"
    )
    assert "no such file" in wrong("route", "--config", file, "--plugin", "own.py")
    assert "no effect without --config" in wrong("route", "--router", "keyword", "--allow-code")
