"""A policy whose weights are on this machine, sampled with vLLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from typing import Any

from drsow_plugin.config.sampling import Sampling
from drsow_plugin.errors import ConfigError, EngineError
from drsow_plugin.generation.policy import Ask, Sample
from drsow_plugin.generation.texts import as_sample, prompt_ids
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.records import Problem

_FIRST, _AT_ONCE = 64, 1024  # responses that vLLM is given together; it makes batches of them


def import_vllm() -> Any:
    """Return vLLM's module; a ``ConfigError`` where it is not installed, or cannot be imported."""
    if find_spec("vllm") is None:
        raise ConfigError(
            "engine=vllm needs vLLM, which is not installed here: pip install vllm (Linux with a "
            "GPU), leave engine out to sample with transformers, or name a server with server=…."
        )
    try:
        import vllm

        _ = vllm.LLM, vllm.SamplingParams  # imported when they are asked for
    except Exception as error:  # it was built for another torch, or another GPU
        raise ConfigError(f"engine=vllm: vLLM cannot be imported: {_said(error)}") from error
    return vllm


class VllmPolicy:
    """Samples with vLLM: prompts are token ids of our own, batches are vLLM's."""

    def __init__(self, vllm: Any, model: LanguageModel, sampling: Sampling) -> None:
        """Take vLLM's module and a model; its weights are loaded when they are needed.

        Raises:
            ConfigError: The model is a file that vLLM does not read.
        """
        if model.identity.source.gguf_file:
            raise ConfigError(
                f"engine=vllm reads folders and Hub ids, and {model.config.source!r} is a GGUF "
                "file. Leave engine out, or give the model as a folder."
            )
        self._vllm, self._model, self._sampling = vllm, model, sampling
        self._loaded: Any = None

    def describe(self) -> dict[str, Any]:
        """Return what identifies its responses; an ``EngineError`` where a file was changed."""
        own = self._model.identity.fingerprint()
        return {"engine": f"vLLM {self._vllm.__version__}", "fingerprint": own}

    def samples(self, asks: Iterator[Ask]) -> Iterator[tuple[int, Sample | Problem]]:
        """Yield responses; see :class:`~drsow_plugin.generation.policy.Policy`."""
        begin, size, room = 0, _FIRST, self._sampling.max_tokens
        while window := list(islice(asks, size)):
            found = dict(enumerate(prompt_ids(self._model, window, room), begin))
            yield from ((n, ids) for n, ids in found.items() if isinstance(ids, Problem))
            prompts = {n: ids for n, ids in found.items() if not isinstance(ids, Problem)}
            seeds = [window[n - begin].seed for n in prompts]
            yield from zip(prompts, self._sample([*prompts.values()], seeds), strict=True)
            begin, size = begin + len(window), _AT_ONCE

    def close(self) -> None:
        """End vLLM's processes, which hold most of the memory of a GPU."""
        if self._loaded is not None:
            self._loaded.llm_engine.engine_core.shutdown()
            self._loaded = None

    def _sample(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Sample]:
        from drsow_plugin.models.sampling import ended, stops_of

        if not prompts:
            return []
        stops, end = stops_of(self._model), self._model.identity.end_of_turn_ids
        how = {n: getattr(self._sampling, n) for n in ("temperature", "top_p", "max_tokens")}
        how |= {"top_k": self._sampling.top_k or -1, "stop_token_ids": stops, "detokenize": False}
        self._loaded = self._loaded or self._load()
        try:
            asked = [{"prompt_token_ids": [*prompt]} for prompt in prompts]
            params = [self._vllm.SamplingParams(seed=seed, **how) for seed in seeds]
            made = [a.outputs[0] for a in self._loaded.generate(asked, params, use_tqdm=False)]
        except Exception as error:
            raise EngineError(f"vLLM failed while it sampled: {_said(error)}") from error
        if other := {one.finish_reason for one in made} - {"stop", "length"}:
            raise EngineError(f"vLLM ended a response with {other.pop()!r}. Run it again.")
        samples = []
        for one in made:  # where it stopped the last token did that: a checkpoint may name more
            last = one.token_ids[-1:] if one.finish_reason == "stop" else []
            samples.append(ended([*one.token_ids], [*stops, *last], end))
        return [as_sample(self._model, sample) for sample in samples]

    def _load(self) -> Any:
        config, identity = self._model.config, self._model.identity
        try:
            is_cpu = self._vllm.platforms.current_platform.is_cpu()
            return self._vllm.LLM(
                model=identity.source.name,
                revision=identity.source.commit,
                dtype=identity.dtype,
                max_model_len=identity.max_length,
                trust_remote_code=config.trust_remote_code,
                load_format="auto" if config.allow_pickle else "safetensors",
                enforce_eager=config.compile == "off",
                # On a CPU prompts that are read in pieces, with a seed, end vLLM 0.32.
                enable_chunked_prefill=False if is_cpu else None,
                skip_tokenizer_init=True,
            )
        except Exception as error:
            raise EngineError(f"vLLM cannot load {config.source!r}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
