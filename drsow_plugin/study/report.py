"""The report on a study: what it found out, printed and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drsow_plugin.study.findings import Findings
from drsow_plugin.study.output import save
from drsow_plugin.study.text import summary


@dataclass(frozen=True)
class StudyReport(Findings):
    """What a study found out; printed, it is a few lines.

    Its values are those of :class:`~drsow_plugin.study.findings.Findings`.
    """

    def __str__(self) -> str:
        return summary(self)

    def save(self, folder: str | Path) -> list[str]:
        """Write pages, pictures, tables and figures into a folder; return the files' names.

        Args:
            folder: An empty one, one to be made, or that of a former study of the same rows.

        Raises:
            ConfigError: It holds something else, or a study of other rows.
            StorageError: It cannot be written.
        """
        return save(self, Path(folder).expanduser())
