"""The study: N models over the same rows, once each, and all of their pairs compared."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

from drsow_plugin.cache import cache_folder
from drsow_plugin.config.keywords import StudyOptions
from drsow_plugin.config.parse import call_text
from drsow_plugin.study.analysis import analyse
from drsow_plugin.study.options import Setup, parse_study
from drsow_plugin.study.passes import measure
from drsow_plugin.study.report import StudyReport
from drsow_plugin.study.rows import StudyData, read_data, read_task

if TYPE_CHECKING:
    from drsow_plugin.config.in_memory import ModelObject


class Study:
    """Compares all ordered pairs of N models, at the cost of N passes.

    Each model reads each row once; its log-probs are kept by model, prompt and response, so that a
    study that was killed goes on, one that is made again costs nothing, and a further model costs
    one pass.

    Attributes:
        setup: What was asked for, checked.
    """

    def __init__(
        self,
        models: Mapping[str, str | ModelObject | Mapping[str, Any]],
        **options: Unpack[StudyOptions],
    ) -> None:
        """Check what is asked for; opens no model.

        Args:
            models: By name a source, or a mapping with ``source``, options of a model, ``scores``
                (benchmark scores by name), ``memory`` and ``cost``.
            **options: Those of a study in ``docs/options.md``; those of models hold for each that
                has no other.

        Raises:
            ConfigError: An option is wrong, two models are the same, or a score has no value for
                one of them.
        """
        self.setup: Setup = parse_study(models, options)

    def __repr__(self) -> str:
        return call_text("Study", {model.name: model.config.source for model in self.setup.models})

    def run(
        self,
        data: Any,
        *,
        name: str | None = None,
        limit: int | None = None,
        cache_dir: str | None = None,
    ) -> StudyReport:
        """Score what is not kept yet, and compare.

        Args:
            data: Preference pairs: a ``Dataset``, a list of rows, or the name of a task of this
                package, such as ``llmbar``.
            name: What the data is called in the report.
            limit: Rows that are read, from the first; of a group of tasks, of each.
            cache_dir: Where finished work is kept; by default ``DRSOW_CACHE`` or
                ``~/.cache/drsow``.

        Returns:
            What was found out. A model that cannot be used is missing in it, with the reason.

        Raises:
            ConfigError: Two models turn out to be the same, or fewer than two can be used.
            DataError: The data holds no pairs, or the models have too few rows in common.
            StorageError: Log-probs cannot be kept.
            Interrupted: Ctrl-C; what is finished is kept.
        """
        return self.run_on(self.read(data, name=name, limit=limit), cache_dir=cache_dir)

    def read(self, data: Any, *, name: str | None = None, limit: int | None = None) -> StudyData:
        """Return the rows of a study, for :meth:`run_on`; see :meth:`run`."""
        if isinstance(data, str):
            return read_task(data, {}, limit)
        return read_data(data, self.setup.columns, name or "the data", limit)

    def run_on(self, data: StudyData, *, cache_dir: str | None = None) -> StudyReport:
        """Score what is not kept yet of rows that were read, and compare; see :meth:`run`."""
        folder: Path = cache_folder(cache_dir)
        return analyse(self.setup, data, measure(self.setup, data, folder))
