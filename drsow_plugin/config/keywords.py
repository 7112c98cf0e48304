"""The options as keyword arguments, for editors and type checkers.

Written by scripts/write_options.py from where they are declared; not by hand.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from drsow_plugin.config.in_memory import ModelObject


class ModelOptions(TypedDict, total=False):
    """The options of :class:`~drsow_plugin.LanguageModel`, but for the model."""

    end_of_turn: bool
    overflow: Literal["error", "skip", "truncate_prompt"]
    max_length: int | None
    control_tokens: Literal["text", "parse", "error"]
    batch_tokens: int | None
    batch_size: int | None
    revision: str | None
    dtype: object
    device: str | None
    device_map: str | Mapping[str, Any] | None
    attn_implementation: str | None
    compile: Literal["auto", "on", "off"]
    quantization: str | Mapping[str, Any] | None
    adapter: str | None
    adapter_revision: str | None
    template: str | None
    template_args: str | Mapping[str, Any] | None
    template_date: str | datetime.date | None
    tokenizer: str | PreTrainedTokenizerBase | None
    trust_remote_code: bool
    allow_pickle: bool
    server: str | list[str] | None
    server_model: str | None
    server_key: str | None
    server_timeout: float
    server_wait: float


class PairOptions(ModelOptions, total=False):
    """The options of :class:`~drsow_plugin.DrSoW`, but for the two models."""

    reduction: Literal["sum", "mean"]
    refine: float
    router: str | None
    domains: str | list[str] | None
    plugin: str | list[str] | None
    domain_column: str | None
    domain_parts: Literal["none", "instruction", "examples", "both"] | None
    domain_side: Literal["both", "strong"] | None
    domain_shots: int | None
    router_model: str | ModelObject
    router_confidence: float | None
    strong_revision: str | None
    strong_dtype: object
    strong_device: str | None
    strong_device_map: str | Mapping[str, Any] | None
    strong_attn_implementation: str | None
    strong_compile: Literal["auto", "on", "off"]
    strong_quantization: str | Mapping[str, Any] | None
    strong_adapter: str | None
    strong_adapter_revision: str | None
    strong_template: str | None
    strong_template_args: str | Mapping[str, Any] | None
    strong_template_date: str | datetime.date | None
    strong_tokenizer: str | PreTrainedTokenizerBase | None
    strong_trust_remote_code: bool
    strong_allow_pickle: bool
    strong_server: str | list[str] | None
    strong_server_model: str | None
    strong_server_key: str | None
    strong_server_timeout: float
    strong_server_wait: float
    weak_revision: str | None
    weak_dtype: object
    weak_device: str | None
    weak_device_map: str | Mapping[str, Any] | None
    weak_attn_implementation: str | None
    weak_compile: Literal["auto", "on", "off"]
    weak_quantization: str | Mapping[str, Any] | None
    weak_adapter: str | None
    weak_adapter_revision: str | None
    weak_template: str | None
    weak_template_args: str | Mapping[str, Any] | None
    weak_template_date: str | datetime.date | None
    weak_tokenizer: str | PreTrainedTokenizerBase | None
    weak_trust_remote_code: bool
    weak_allow_pickle: bool
    weak_server: str | list[str] | None
    weak_server_model: str | None
    weak_server_key: str | None
    weak_server_timeout: float
    weak_server_wait: float
    router_revision: str | None
    router_dtype: object
    router_device: str | None
    router_device_map: str | Mapping[str, Any] | None
    router_attn_implementation: str | None
    router_compile: Literal["auto", "on", "off"]
    router_quantization: str | Mapping[str, Any] | None
    router_adapter: str | None
    router_adapter_revision: str | None
    router_template: str | None
    router_template_args: str | Mapping[str, Any] | None
    router_template_date: str | datetime.date | None
    router_tokenizer: str | PreTrainedTokenizerBase | None
    router_trust_remote_code: bool
    router_allow_pickle: bool
    router_server: str | list[str] | None
    router_server_model: str | None
    router_server_key: str | None
    router_server_timeout: float
    router_server_wait: float


class StudyOptions(ModelOptions, total=False):
    """The options of :class:`~drsow_plugin.Study`, but for the models."""

    scores: str | None
    memory: int | str | None
    max_cost: float | None
    resamples: int
    folds: int
    min_common: float
    seed: int
    prompt_column: str | None
    chosen_column: str | None
    rejected_column: str | None
    label_column: str | None
    group_column: str | None
    reduction: Literal["sum", "mean"]


class AnnotatorOptions(PairOptions, total=False):
    """The options of :class:`~drsow_plugin.Annotator`: those of the pair and of the labels."""

    kind: Literal["pairs", "candidates", "single"] | None
    prompt_column: str | None
    chosen_column: str | None
    rejected_column: str | None
    responses_column: str | None
    response_column: str | None
    label_column: str | None
    ratings_column: str | None
    group_column: str | None
    select: Literal["best_vs_random", "best_vs_worst", "best_vs_median"]
    min_margin: float
    seed: int
    relabel: Literal["keep", "swap"]
    messages: bool | None
    margin_temperature: float | None
    length_slope: float | None
    token_logprobs: bool
    on_error: Literal["raise", "null"]
    prefix: str
    keep_names: bool
