"""Publishing a labelled data set: the data first, then its card and report in one commit.

Each step can be repeated: publishing again after an interruption completes the work and gives
the same files.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.publishing import card, readme
from drsow_plugin.publishing.repository import Repository, open_api
from drsow_plugin.redaction import without_local_paths, without_tokens

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from drsow_plugin.annotate.report import Report

_log = logging.getLogger(__name__)


class PublishOptions(TypedDict, total=False):
    """The options of :func:`publish`."""

    private: bool
    revision: str | None
    token: str | None
    license: str | None
    language: str | Sequence[str] | None
    dry_run: str | Path | None


def publish(
    data: Dataset | DatasetDict | str | Path,
    repo_id: str,
    report: Report | None = None,
    **options: Unpack[PublishOptions],
) -> str:
    """Publish a labelled data set with its card on the Hugging Face Hub.

    Of a README that is there only our section, between its markers, and missing keys of the
    front matter are written. Other files are left alone, but a `DatasetDict` replaces all
    splits, as `push_to_hub` does.

    Args:
        data: The labelled rows, with at least one row, or the folder or file that ``drsow
            annotate`` wrote.
        repo_id: ``owner/name``, or ``name`` for the owner of the token.
        report: How the rows were labelled: ``Annotator.report`` after ``run``, or
            ``Annotator.report_on(rows)`` after ``map``. A folder and a file have their own.
        **options: ``private`` (create a private repository, and refuse one that is public;
            the default), ``revision`` (the branch to publish on, created where it is
            missing), ``token`` (with write access; by default that of ``hf auth login``),
            ``license`` (as the Hub knows it, such as ``cc-by-4.0``), ``language`` (code or
            codes, such as ``en``) and ``dry_run`` (a new folder, or one of a former dry run:
            the card of a new repository and its files are written there, and nothing is sent).

    Returns:
        The address of the data set's page, or the folder of a dry run.

    Raises:
        ConfigError: An argument is wrong.
        DataError: There are no rows, they do not fit those of the repository, or the front
            matter of the README there is broken. Nothing was uploaded.
        HubError: The Hub refused, could not be reached or holds a public repository.
    """
    if isinstance(data, (str, Path)):
        data, report = _read_output(Path(data).expanduser(), report)
    if report is None:
        raise ConfigError(
            "The card says how the rows were labelled: give report=annotate.report after "
            "annotate.run(…), or report=annotate.report_on(rows) after rows.map(annotate, …)."
        )
    if report.shard is not None:
        raise ConfigError(
            f"This is shard {report.shard.get('shard')} of a data set. Merge all of them first, "
            "with 'drsow merge' or annotate.merge(…), and publish what comes of it."
        )
    check_name(repo_id)
    rows = _count(data)
    token = options.get("token")
    repository = Repository(open_api(token), repo_id, options.get("revision"), token)
    if folder := options.get("dry_run"):
        made = _card(data, repo_id, report, options, repository.secret)
        return _write_card(Path(folder).expanduser(), made)
    address = repository.open(private=options.get("private", True))
    before = repository.readme()
    readme.check(before)
    made = _card(data, repository.repo_id, report, options, repository.secret)
    repository.push(data, next(iter(rows)))
    _log.info("Uploaded %d rows to %s.", sum(rows.values()), address)
    repository.write_card(
        lambda now: readme.merge(before, made.section, made.metadata, pushed=now), made.files
    )
    return address


@dataclass(frozen=True)
class _Card:
    """What is written beside the rows: a section and keys of the README, and files by path."""

    section: str
    metadata: dict[str, Any]
    files: dict[str, bytes]


def _card(
    data: Dataset | DatasetDict,
    repo_id: str,
    report: Report,
    options: PublishOptions,
    secret: str | None,
) -> _Card:
    """Return the card of checked data; without anything that looks like a token or a local path."""
    from drsow_plugin.annotate.place import DRAWN, PAGE
    from drsow_plugin.annotate.report import Report

    values = without_local_paths(without_tokens(report.values, secret))
    report = replace(Report.from_values(values), draw=report.draw, page=report.page)
    splits = data if isinstance(data, Mapping) else {"": data}
    published = card.Published(
        repo_id=repo_id,
        rows=_count(data),
        columns=next(iter(splits.values())).column_names,
        pictures=[name for name in DRAWN if name in report.page] or sorted(report.pictures),
        has_page=PAGE in report.page,
        revision=options.get("revision"),
    )
    return _Card(
        card.render_section(report, published),
        front_matter(report, published, options),
        {f"{card.FOLDER}/{name}": content for name, content in report.files().items()},
    )


def _write_card(folder: Path, made: _Card) -> str:
    """Write a card into a folder as it would stand in a new repository; return the folder."""
    ours = folder / card.FOLDER
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not ours.is_dir()):
        raise ConfigError(
            f"The dry run's {str(folder)!r} holds other things. Give a new or empty folder, or "
            "that of a former dry run."
        )
    try:
        ours.mkdir(parents=True, exist_ok=True)
        for path, content in made.files.items():
            (folder / path).write_bytes(content)
        merged = readme.merge("", made.section, made.metadata)
        (folder / "README.md").write_text(merged, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{str(folder)!r} cannot be written: {error.strerror}.") from error
    return str(folder)


def check_target(repo_id: str, *, private: bool = True, token: str | None = None) -> None:
    """Check, before work is done for it, that a data set could be published under a name.

    Raises:
        ConfigError: The name is none of a data set.
        HubError: Nobody is logged in, or the repository is public and ``private``.
    """
    check_name(repo_id)
    Repository(open_api(token), repo_id, None, token).check(private=private)


def _read_output(path: Path, report: Report | None) -> tuple[Dataset | DatasetDict, Report]:
    from drsow_plugin.annotate.place import Place
    from drsow_plugin.annotate.report import Report
    from drsow_plugin.data.loading import load_data, named_split

    place = Place.of(path)
    if not (path.is_file() if place.is_file else path.is_dir()):
        raise ConfigError(
            f"{str(path)!r} is no folder, .parquet or .jsonl file. Give one that 'drsow annotate' "
            "wrote, or a data set."
        )
    if report is None:
        place.check_whole()
        report = Report.load(path)
    loaded = load_data([str(path)])
    if place.is_file and not isinstance(loaded, Mapping):
        loaded = named_split(loaded, next(iter(report.splits)))
    return loaded, report


def front_matter(
    report: Report, published: card.Published, options: PublishOptions
) -> dict[str, Any]:
    """Return the keys of the front matter that follow from the report.

    Keys as https://github.com/huggingface/hub-docs/blob/main/datasetcard.md lists them.
    ``base_model`` is none of these: it belongs to model cards, where it makes the repository a
    derivative of the weights. The section names and links both models instead.
    """
    pairs = ["preference", "dpo"] if report.kind != "single" else []
    source = report.input
    language = options.get("language") or []
    keys = {
        "license": options.get("license"),
        "language": [language] if isinstance(language, str) else list(language),
        "annotations_creators": ["found" if card.keeps_labels(report) else "machine-generated"],
        "task_categories": ["text-generation"],
        "size_categories": [size_category(sum(published.rows.values()))],
        "source_datasets": [source] if card.is_hub_dataset(source) else None,
        "tags": [*pairs, "drsow", "rlhf"],
    }
    return {key: value for key, value in keys.items() if value}


def size_category(rows: int) -> str:
    """Return the Hub's name for a number of rows, such as ``1K<n<10K``."""
    power = len(str(rows)) - 1
    if power < 3:
        return "n<1K"
    if power >= 12:
        return "n>1T"
    low, high = (f"{10 ** (p % 3)}{'KMBT'[p // 3 - 1]}" for p in (power, power + 1))
    return f"{low}<n<{high}"


def _count(data: Any) -> dict[str, int]:
    """Check the rows and return the number of them in each split."""
    from drsow_plugin.annotate.outputs import splits_of

    rows = {name: len(split) for name, split in splits_of(data).items()}
    if not sum(rows.values()):
        raise DataError(
            f"There are no rows to publish (splits: {', '.join(rows) or 'none'}). "
            "Look at why all of them were dropped."
        )
    return rows


def check_name(repo_id: str) -> None:
    """Check that a data set of this name can be on the Hub.

    Raises:
        ConfigError: It cannot.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(f"A data set on the Hub is named owner/name or name: {error}") from None
