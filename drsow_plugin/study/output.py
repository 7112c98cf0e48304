"""The folder that a study is written into."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from drsow_plugin.cache import UNFINISHED, storage_errors, unfinished
from drsow_plugin.errors import ConfigError
from drsow_plugin.printable import json_line
from drsow_plugin.study.findings import Findings, tables
from drsow_plugin.study.pages import blocks, to_html, to_markdown
from drsow_plugin.study.plots import draw

REPORT = "study.json"
"""All that was found out; it says which data the folder is of."""
_PAGES = ("study.md", "study.html")


def check_folder(folder: Path, data_sha256: str) -> None:
    """Check, before any model is scored, that a study of these rows may be written there.

    Raises:
        ConfigError: There is something else, or a study of other rows.
    """
    if folder.is_file():
        raise ConfigError(f"OUTPUT {str(folder)!r} is a file; a study is written into a folder.")
    if not folder.is_dir() or all(p.name.startswith(UNFINISHED) for p in folder.iterdir()):
        return
    try:
        found = json.loads((folder / REPORT).read_text(encoding="utf-8"))["data_sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        raise ConfigError(
            f"OUTPUT {str(folder)!r} is there already and holds no study. Give another name, or "
            "remove it."
        ) from None
    if found != data_sha256:
        raise ConfigError(
            f"OUTPUT {str(folder)!r} holds a study of other rows. Give another name, or remove it; "
            "log-probs are kept elsewhere."
        )


def save(report: Findings, folder: Path) -> list[str]:
    """Write a study: a page as Markdown and as HTML, pictures, tables and all figures as JSON.

    Each file is exchanged as a whole. ``study.json`` comes first: it says which rows a folder is
    of, so that a study whose writing was interrupted is written again.

    Args:
        report: The study.
        folder: An empty folder, one to be made, or that of a former study of the same rows.

    Returns:
        The names of the files.

    Raises:
        ConfigError: There is something else.
        StorageError: It cannot be written.
    """
    check_folder(folder, report.data_sha256)
    files = _files(report)
    with storage_errors(f"{folder} cannot be written", "Log-probs are kept: run it again."):
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished(folder) as writing:
            for name, content in files.items():
                (writing / name).write_bytes(content)
            for name in files:
                (writing / name).replace(folder / name)
    return list(files)


def _files(report: Findings) -> Mapping[str, bytes]:
    pictures, page = draw(report), list(blocks(report))
    texts = {
        REPORT: json_line(report.values()) + "\n",
        _PAGES[0]: to_markdown(page),
        _PAGES[1]: to_html(page, pictures),
        **tables(report),
    }
    return {**{name: text.encode() for name, text in texts.items()}, **pictures}
