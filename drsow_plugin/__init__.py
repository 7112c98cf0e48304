"""Dr.SoW: any two causal language models as a reward model, with no training.

Importing this package imports neither torch, transformers, datasets nor lm_eval; each is
imported by what needs it, on first use.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without importing typing at every start
if TYPE_CHECKING:
    from drsow_plugin.annotate.annotator import Annotator as Annotator
    from drsow_plugin.annotate.report import Report as Report
    from drsow_plugin.config.model import ModelConfig as ModelConfig
    from drsow_plugin.config.pair import PairConfig as PairConfig
    from drsow_plugin.engines import Engine as Engine
    from drsow_plugin.engines.fake import FakeEngine as FakeEngine
    from drsow_plugin.errors import ConfigError as ConfigError
    from drsow_plugin.errors import DataError as DataError
    from drsow_plugin.errors import DrSoWError as DrSoWError
    from drsow_plugin.errors import EngineError as EngineError
    from drsow_plugin.errors import PluginError as PluginError
    from drsow_plugin.errors import StorageError as StorageError
    from drsow_plugin.generation.runner import generate as generate
    from drsow_plugin.harness import tasks_path as tasks_path
    from drsow_plugin.harness.model import DrSoWLM as DrSoWLM
    from drsow_plugin.harness.reward_model import RewardModelLM as RewardModelLM
    from drsow_plugin.models.language_model import LanguageModel as LanguageModel
    from drsow_plugin.models.reward_model import RewardModel as RewardModel
    from drsow_plugin.publishing.publish import publish as publish
    from drsow_plugin.records import LogProb as LogProb
    from drsow_plugin.records import Problem as Problem
    from drsow_plugin.records import Reward as Reward
    from drsow_plugin.records import Route as Route
    from drsow_plugin.records import Scoring as Scoring
    from drsow_plugin.records import TokenPair as TokenPair
    from drsow_plugin.routing.domains import Domain as Domain
    from drsow_plugin.routing.hookspecs import Router as Router
    from drsow_plugin.routing.hookspecs import RouterContext as RouterContext
    from drsow_plugin.routing.hookspecs import RouterInput as RouterInput
    from drsow_plugin.routing.hookspecs import hookimpl as hookimpl
    from drsow_plugin.scoring.drsow import DrSoW as DrSoW
    from drsow_plugin.study.report import StudyReport as StudyReport
    from drsow_plugin.study.study import Study as Study

_HOMES = {
    "Annotator": "annotate.annotator",
    "ConfigError": "errors",
    "DataError": "errors",
    "Domain": "routing.domains",
    "DrSoW": "scoring.drsow",
    "DrSoWError": "errors",
    "DrSoWLM": "harness.model",
    "Engine": "engines",
    "EngineError": "errors",
    "FakeEngine": "engines.fake",
    "LanguageModel": "models.language_model",
    "LogProb": "records",
    "ModelConfig": "config.model",
    "PairConfig": "config.pair",
    "PluginError": "errors",
    "Problem": "records",
    "Report": "annotate.report",
    "Reward": "records",
    "RewardModel": "models.reward_model",
    "RewardModelLM": "harness.reward_model",
    "Route": "records",
    "Router": "routing.hookspecs",
    "RouterContext": "routing.hookspecs",
    "RouterInput": "routing.hookspecs",
    "Scoring": "records",
    "StorageError": "errors",
    "Study": "study.study",
    "StudyReport": "study.report",
    "TokenPair": "records",
    "generate": "generation.runner",
    "hookimpl": "routing.hookspecs",
    "publish": "publishing.publish",
    "tasks_path": "harness",
}

__all__ = sorted((*_HOMES, "__version__"))


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use (PEP 562)."""
    if name == "__version__":
        from importlib import metadata

        return metadata.version("drsow-plugin")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
