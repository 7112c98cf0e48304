"""Publishing through the real clients, against a stand-in for the Hub on the loopback."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
import yaml
from helpers import tiny
from helpers.hub_server import READER, TOKEN, HubServer
from helpers.preferences import candidates, pairs
from helpers.reports import REPO, report
from huggingface_hub import constants

from drsow_plugin import Annotator, Report, publish
from drsow_plugin.errors import ConfigError, DataError, HubError
from drsow_plugin.publishing import readme as readmes
from drsow_plugin.publishing import repository
from drsow_plugin.publishing.publish import check_target

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(40)
USERS = (
    b"---\r\n# about the owners\r\nlicense: 'cc-by-4.0'   # ours\r\ntags: [mine, dpo]\r\n"
    b"empty: null\r\n---\r\n\r\n# Mine\r\n\r\nText | of <b>mine</b>.  \r\n\tLast line"
)


@pytest.fixture
def data() -> datasets.Dataset:
    names = ["one", "two", "three", "four"]
    return datasets.Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": f"Say {name}."}] for name in names],
            "chosen": [[{"role": "assistant", "content": name}] for name in names],
            "rejected": [[{"role": "assistant", "content": "I will not."}] for _ in names],
            "drsow_margin": [1.5, 0.5, 2.0, 0.25],
            "drsow_status": ["ok", "partial: one", "ok", "tie"],
        }
    )


def send(data: Any, values: dict[str, Any] | None = None, **options: Any) -> str:
    return publish(
        data, REPO, Report.from_values(values or report(), {"margins.png": PICTURE}), **options
    )


def front(readme: bytes) -> dict[str, Any]:
    return yaml.safe_load(readme.decode().split("---")[1])


def outside(readme: bytes) -> bytes:
    start, rest = readme.split(readmes.BEGIN.encode())
    return start + rest.split(readmes.END.encode())[1]


def test_a_new_data_set_is_private_and_described_and_reads_back(
    server: HubServer, data: datasets.Dataset
) -> None:
    address = send(data)
    repository = server.repositories[REPO]
    assert address == f"{server.url}/datasets/{REPO}"
    assert repository.private
    assert set(repository.files()) == {
        *("README.md", "data/train-00000-of-00001.parquet"),
        *("drsow/margins.png", "drsow/report.json", "drsow/drsow.yaml"),
    }
    readme = repository.files()["README.md"]
    assert front(readme)["tags"] == ["preference", "dpo", "drsow", "rlhf"]
    assert front(readme)["size_categories"] == ["n<1K"]
    assert front(readme)["source_datasets"] == ["org/source"]
    assert {"dataset_info", "configs"} <= set(front(readme))
    assert b"61.2 \xc2\xb1 2.1 %" in readme and b"![margins.png](drsow/margins.png)" in readme
    loaded = datasets.load_dataset(REPO, split="train")
    assert loaded.to_list() == data.to_list()
    assert huggingface_hub.DatasetCard.load(REPO).data.tags == front(readme)["tags"]


def test_publishing_again_replaces_the_section_and_nothing_else(
    server: HubServer, data: datasets.Dataset
) -> None:
    send(data)
    first = dict(server.repositories[REPO].files())
    send(data)
    assert dict(server.repositories[REPO].files()) == first
    send(data, values=report(created="2027-01-01"))
    second = dict(server.repositories[REPO].files())
    changed = {path for path in second if second[path] != first.get(path)}
    assert changed == {"README.md", "drsow/report.json"}
    assert outside(second["README.md"]) == outside(first["README.md"])
    assert second["README.md"].count(b"2027-01-01") == 1
    assert b"2026-11-23" not in second["README.md"]


def test_the_readme_of_the_user_is_kept_byte_for_byte(
    server: HubServer, data: datasets.Dataset
) -> None:
    server.create(REPO, {"README.md": USERS, "notes.txt": b"mine"})
    send(data, license="mit", language="en")
    files = server.repositories[REPO].files()
    readme = files["README.md"]
    assert files["notes.txt"] == b"mine"
    head, text = USERS.split(b"tags: [mine, dpo]\r\n")
    assert readme.startswith(head)
    assert outside(readme).split(b"\r\n---\r\n")[1].startswith(text.split(b"---\r\n")[1])
    assert b"\r\nempty: null\r\n" in readme
    assert front(readme)["tags"] == ["mine", "dpo", "preference", "drsow", "rlhf"]
    assert front(readme)["license"] == "cc-by-4.0"
    assert front(readme)["language"] == ["en"]
    assert {"dataset_info", "configs"} <= set(front(readme))
    assert b"\n" not in readme.replace(b"\r\n", b"")


def test_broken_front_matter_is_refused_before_anything_is_uploaded(
    server: HubServer, data: datasets.Dataset
) -> None:
    server.create(REPO, {"README.md": b"---\ntags: [mine\n---\ntext"})
    with pytest.raises(DataError, match=r"front matter of README.md is no YAML.*Repair"):
        send(data)
    assert list(server.repositories[REPO].files()) == ["README.md"]


def test_a_readme_in_another_encoding_is_refused_before_anything_is_uploaded(
    server: HubServer, data: datasets.Dataset
) -> None:
    server.create(REPO, {"README.md": "é".encode("latin-1")})
    with pytest.raises(DataError, match="not in UTF-8"):
        send(data)
    assert list(server.repositories[REPO].files()) == ["README.md"]


@pytest.mark.parametrize(
    ("token", "status", "advice"),
    [("hf_" + "0" * 12, "401", "hf auth login"), (READER, "403", "write access")],
)
def test_a_refused_token_tells_what_to_do_and_is_not_tried_again(
    server: HubServer, data: datasets.Dataset, token: str, status: str, advice: str
) -> None:
    with pytest.raises(HubError, match=advice) as caught:
        send(data, token=token)
    assert status in str(caught.value) and token not in str(caught.value)
    assert [r.path for r in server.requests].count("/api/repos/create") == 1
    assert not server.repositories


def test_without_a_token_one_line_says_so_and_nothing_is_asked(
    server: HubServer, data: datasets.Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    for call in (lambda: send(data), lambda: check_target(REPO)):
        with pytest.raises(HubError, match=r"needs a token .*'hf auth login' or set HF_TOKEN"):
            call()
    assert not server.requests


def test_a_dry_run_writes_the_card_that_publishing_would_and_sends_nothing(
    server: HubServer, data: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "card"
    with monkeypatch.context() as without:
        without.delenv("HF_TOKEN")
        without.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        for _ in range(2):  # a former dry run may be written over
            assert send(data, dry_run=folder, license="mit") == str(folder)
    assert not server.requests
    dry = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    send(data, license="mit")
    sent = dict(server.repositories[REPO].files())
    of_rows = {"data/train-00000-of-00001.parquet", "README.md"}
    assert {n: c for n, c in sent.items() if n not in of_rows} == {
        n: c for n, c in dry.items() if n != "README.md"
    }
    section = readmes.BEGIN.encode()
    assert sent["README.md"].split(section)[1] == dry["README.md"].split(section)[1]
    keys = {k: v for k, v in front(sent["README.md"]).items() if k not in readmes._BY_CLIENT}
    assert front(dry["README.md"]) == keys
    monkeypatch.setenv("HF_TOKEN", "no-usual-token")
    send(data, dry_run=folder, values=report(command="drsow annotate --x no-usual-token"))
    assert "no-usual-token" not in (folder / "README.md").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    for other in (tmp_path / "mine", tmp_path / "mine" / "README.md"):
        with pytest.raises(ConfigError, match="holds other things"):
            send(data, dry_run=other)


@pytest.mark.parametrize("conflict", [409, 412])
def test_an_edit_during_publishing_is_kept(
    server: HubServer, data: datasets.Dataset, conflict: int
) -> None:
    send(data)
    repository = server.repositories[REPO]

    def edit() -> None:
        readme = b"---\ntags: [theirs]\n---\n# Theirs\n"
        repository.add({"README.md": readme, "new.txt": b"new"}, "edit")
        if conflict == 409:
            server.fail("POST", "/commit/main", 409)

    def before_the_card() -> None:
        server.before("/commit/main", edit)

    server.before("/commit/main", before_the_card)  # the first commit is the data's
    send(data.select(range(3)), values=report(created="2027-01-01"))
    files = repository.files()
    assert files["new.txt"] == b"new"
    assert b"# Theirs\n" in files["README.md"] and b"2027-01-01" in files["README.md"]
    assert front(files["README.md"])["tags"][0] == "theirs"


def test_an_edit_while_the_data_is_committed_is_kept(
    server: HubServer, data: datasets.Dataset
) -> None:
    server.create(REPO, {"README.md": USERS})
    repository = server.repositories[REPO]
    server.before("/commit/main", lambda: repository.add({"README.md": b"# Theirs\n"}, "edit"))
    send(data)
    assert b"# Theirs\n" in repository.files()["README.md"]
    assert datasets.load_dataset(REPO, split="train").num_rows == 4


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/repos/create", 500),
        ("POST", "/commit/main", 503),
        ("POST", "/commit/main", 0),
        ("POST", "/api/validate-yaml", 502),
        ("GET", f"/api/datasets/{REPO}", 429),
        ("HEAD", "README.md", 504),
    ],
)
def test_a_passing_failure_is_tried_again(
    server: HubServer, data: datasets.Dataset, method: str, path: str, status: int
) -> None:
    server.fail(method, path, status, times=2)
    send(data)
    assert "drsow/report.json" in server.repositories[REPO].files()


def test_a_failure_that_stays_ends_in_an_error(server: HubServer, data: datasets.Dataset) -> None:
    server.fail("POST", "/commit/main", 500, times=99)
    with pytest.raises(HubError, match=r"500.*Publish again later"):
        send(data)
    tries = [r for r in server.requests if "/commit/main" in r.path]
    assert len(tries) == len(repository.WAITS) + 1


@pytest.mark.fault("kill", "a publication is broken off", "the next one makes it whole")
def test_an_interrupted_publication_is_completed_by_the_next(
    server: HubServer, data: datasets.Dataset
) -> None:
    send(data)
    whole = dict(server.repositories.pop(REPO).files())
    server.objects.clear()
    server.before("/commit/main", lambda: server.fail("POST", "/api/validate-yaml", 403))
    with pytest.raises(HubError, match="write access"):
        send(data)
    partial = server.repositories[REPO].files()
    assert "drsow/report.json" not in partial and "data/train-00000-of-00001.parquet" in partial
    send(data)
    assert dict(server.repositories[REPO].files()) == whole


def test_a_public_repository_is_refused_unless_asked_for(
    server: HubServer, data: datasets.Dataset
) -> None:
    server.create(REPO, {"notes.txt": b"mine"}, private=False)
    with pytest.raises(HubError, match=r"is public.*private=False \(--public\)"):
        send(data)
    assert set(server.repositories[REPO].files()) == {"notes.txt"}
    send(data, private=False)
    assert "drsow/report.json" in server.repositories[REPO].files()


def test_the_token_is_nowhere_but_in_the_authorization_header(
    server: HubServer,
    data: datasets.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.delenv("HF_TOKEN")
    send(data, token=TOKEN)
    server.fail("POST", "/commit/main", 400)
    with pytest.raises(HubError) as caught:
        send(data, token=TOKEN, values=report(created=TOKEN))
    said = capfd.readouterr()
    texts = [said.out, said.err, caplog.text, str(caught.value)]
    texts += [f.decode("latin-1") for f in server.repositories[REPO].files().values()]
    for request in server.requests:
        others = {k: v for k, v in request.headers.items() if k != "authorization"}
        texts += [request.path, str(others), request.body.decode("latin-1")]
        if request.headers.get("authorization"):
            assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert not [text for text in texts if TOKEN in text or READER in text]
    config = yaml.safe_load(server.repositories[REPO].files()["drsow/drsow.yaml"])
    assert config == {"strong": "org/strong", "note": "made with hf_***", "seed": 0}


def test_a_branch_is_made_and_published_on(server: HubServer, data: datasets.Dataset) -> None:
    splits = datasets.DatasetDict({"train": data, "test": data.select(range(1))})
    send(splits, revision="v2")
    assert "README.md" not in server.repositories[REPO].files()
    assert "drsow/report.json" in server.repositories[REPO].files("v2")
    assert datasets.load_dataset(REPO, revision="v2", split="test").num_rows == 1
    readme = server.repositories[REPO].files("v2")["README.md"].decode()
    assert 'load_dataset("tester/labelled", revision="v2", split="train")' in readme


def test_a_bare_name_is_one_of_the_owner(server: HubServer, data: datasets.Dataset) -> None:
    address = publish(data, "labelled", Report.from_values(report()))
    assert address.endswith(f"/datasets/{REPO}")
    assert "drsow/report.json" in server.repositories[REPO].files()


def run_example(server: HubServer, tmp_path: Path) -> dict[str, Any]:
    """Run the code of the card that is on the Hub, as it stands but for the model; one step."""
    readme = server.repositories[REPO].files()["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    model = tiny.save(tmp_path / "model", template="chatml")
    code, models = re.subn(r'model_name = ".*"', f"model_name = {model!r}", code)
    limits = 'max_steps=1, report_to="none", use_cpu=True, bf16=False, save_strategy="no"'
    folder = f"output_dir={str(tmp_path / 'dpo')!r}, {limits}"
    code, folders = re.subn('output_dir="dpo"', lambda _: folder, code)
    assert (models, folders) == (1, 1)
    names: dict[str, Any] = {}
    exec(compile(code, "card", "exec"), names)
    assert names["trainer"].state.global_step == 1
    return names


def test_the_training_example_of_the_card_runs(
    server: HubServer, data: datasets.Dataset, tmp_path: Path
) -> None:
    send(data)
    names = run_example(server, tmp_path)
    assert names["data"]["drsow_status"] == ["ok", "partial: one", "ok"]


@pytest.mark.parametrize("kind", ["candidates", "named otherwise"])
@pytest.mark.slow
def test_the_training_example_of_labelled_data_runs(
    server: HubServer, strong: str, weak: str, tmp_path: Path, kind: str
) -> None:
    other = {"prompt": "instruction", "chosen": "good", "rejected": "bad"}
    rows = [{other[n]: value for n, value in row.items() if n in other} for row in pairs(6)]
    named = {"chosen_column": "good", "rejected_column": "bad"}
    options: Any = {} if kind == "candidates" else named
    annotate = Annotator(strong, weak, **options)
    given = datasets.Dataset.from_list(candidates(6) if kind == "candidates" else rows)
    labelled = annotate.run(given, cache_dir=str(tmp_path / "cache"), keep_unusable=True)
    publish(labelled, REPO, annotate.report)
    names = run_example(server, tmp_path)
    trained = names["trainer"].train_dataset
    assert len(trained) == 6 and all(len(row["prompt_ids"]) > 2 for row in trained)


@pytest.mark.parametrize("name", ["a/b/c", "", "a b", "-/x", "a/..", "a--b"])
def test_a_bad_name_is_refused_at_once(data: datasets.Dataset, name: str) -> None:
    with pytest.raises(ConfigError, match="owner/name"):
        publish(data, name, Report.from_values(report()))


def test_data_without_rows_and_other_things_are_refused(data: datasets.Dataset) -> None:
    with pytest.raises(DataError, match="no rows"):
        send(data.select([]))
    with pytest.raises(DataError, match="no rows"):
        send(datasets.DatasetDict())
    with pytest.raises(DataError, match="is a list"):
        send([{"prompt": "x"}])
    with pytest.raises(ConfigError, match=r"report=annotate\.report"):
        publish(data, REPO)


def test_without_the_network_the_error_says_so(
    server: HubServer, data: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        send(data)
    assert not server.requests


def test_importing_the_module_imports_no_client() -> None:
    code = (
        "import sys, drsow_plugin.publishing.publish;"
        "print([m for m in ('datasets', 'huggingface_hub', 'torch') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
