"""What servers of models answer, in the shapes of their wire formats.

Recorded from vLLM 0.32, llama.cpp's server and llama-cpp-python 0.3.36; for SGLang 0.5.23 and for
vLLM's ``/inference/v1/generate`` taken from their code.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class ServedModel:
    """A model on a server.

    Attributes:
        name: What it is served as.
        logprobs: ln p of each token but the first, given those before it.
        vocab_size: Token ids that it knows.
        max_length: Its ``max_model_len``.
        version: Version of the server.
        cached: Prompts in its prefix cache, as ``TokensInOut`` may find it.
    """

    name: str
    logprobs: Callable[[Sequence[int]], list[float]]
    vocab_size: int = 100_000
    max_length: int = 512
    version: str = "0.32.0"
    cached: set[tuple[int, ...]] = field(default_factory=set)


class Refusal(Exception):
    """An error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _models(model: ServedModel, owner: str, **more: Any) -> Any:
    card = {"id": model.name, "object": "model", "created": 1, "owned_by": owner, **more}
    return {"object": "list", "data": [card]}


def _check(model: ServedModel, prompts: Any, room: int = 0) -> list[list[int]]:
    """Return prompts of token ids, as servers that score take them."""
    if not isinstance(prompts, list) or len(prompts) > 1024:
        raise Refusal(400, "prompts are lists of token ids, at most 1024 of them")
    for ids in prompts:
        if not ids or not all(0 <= token < model.vocab_size for token in ids):
            raise Refusal(400, "Token id is out of vocabulary")
        if len(ids) + room > model.max_length:
            raise Refusal(400, f"max_tokens must be at least 1, got {model.max_length - len(ids)}.")
    return prompts


def _completion(choices: list[dict[str, Any]], model: ServedModel) -> Any:
    numbered = [{"index": n, "text": " x", **choice} for n, choice in enumerate(choices)]
    # The order is not the prompts' where a server answers as they are ready.
    return {"id": "cmpl-1", "model": model.name, "choices": numbered[::-1], "usage": {}}


def _prompt_logprobs(model: ServedModel, ids: Sequence[int]) -> list[Any]:
    entries = [
        {str(token): {"logprob": max(value, -9999.0), "rank": 3, "decoded_token": "x"}}
        for token, value in zip(ids[1:], model.logprobs(ids), strict=True)
    ]
    return [None, *entries]


def _echo(model: ServedModel, body: Any, *, ids_known: bool, shift: int = 0) -> Any:
    choices = []
    for ids in _check(model, body["prompt"], room=1):
        found = [None, *model.logprobs(ids), -0.5]
        named = ids_known and body.get("return_tokens_as_token_ids")
        tokens = [f"token_id:{token}" if named else "x" for token in (*ids, 7)]
        values = [*found[shift:], *[-0.5] * shift]
        choices.append({"logprobs": {"tokens": tokens, "token_logprobs": values}})
    return _completion(choices, model)


def vllm(model: ServedModel, path: str, body: Any) -> Any:
    match path:
        case "/v1/models":
            more = {"root": f"/models/{model.name}", "max_model_len": model.max_length}
            return _models(model, "vllm", **more)
        case "/version":
            return {"version": model.version}
        case "/v1/completions":
            if body["model"] != model.name:
                raise Refusal(404, f"The model `{body['model']}` does not exist.")
            if body.get("echo"):
                return _echo(model, body, ids_known=True)
            rows = _check(model, body["prompt"], room=1)
            return _completion(
                [{"prompt_logprobs": _prompt_logprobs(model, ids)} for ids in rows], model
            )
        case "/inference/v1/generate":
            raise Refusal(
                403, "Scale-out endpoints are disabled. Restart vllm serve with --enable-"
            )
        case _:
            raise Refusal(404, "Not Found")


def vllm_v2(model: ServedModel, path: str, body: Any) -> Any:
    """Answer as vLLM with the runner that has ``prompt_logprob_token_ids``."""
    if path != "/inference/v1/generate":
        return vllm(model, path, body)
    (ids,) = _check(model, [body["token_ids"]], room=1)
    asked = body["sampling_params"]
    start, rows = asked["prompt_logprob_start"], asked["prompt_logprob_token_ids"]
    if len(rows) != len(ids) - 1 - start:
        raise Refusal(400, f"prompt_logprob_token_ids has {len(rows)} rows")
    values = model.logprobs(ids)[start:]
    assert [[token] for token in ids[start + 1 :]] == rows  # else the values are of others
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, dtype=np.float32)[:, None])
    encoded: str | None = base64.b64encode(buffer.getvalue()).decode()
    if tuple(ids) in model.cached and not asked["skip_reading_prefix_cache"]:
        encoded = None  # the cache reaches beyond the start
    model.cached.add(tuple(ids))
    choice = {"index": 0, "token_ids": [7], "finish_reason": "length"}
    return {"choices": [choice], "prompt_token_id_logprobs": encoded, "prompt_logprobs": None}


def sglang(model: ServedModel, path: str, body: Any) -> Any:
    match path:
        case "/v1/models":
            more = {"root": model.name, "max_model_len": model.max_length}
            return _models(model, "sglang", **more)
        case "/get_server_info":
            told = {"model_path": f"org/{model.name}", "dtype": "bfloat16", "api_key": "hidden"}
            return {**told, "version": "0.5.23"}
        case "/generate":
            rows = _check(model, body["input_ids"], room=1)
            return [
                _meta(model, ids, start)
                for ids, start in zip(rows, body["logprob_start_len"], strict=True)
            ]
        case _:
            raise Refusal(404, "Not Found")


def _meta(model: ServedModel, ids: list[int], start: int) -> Any:
    values = [None, *model.logprobs(ids)[start:]]
    known = [token if token < model.vocab_size - 1 else 0 for token in ids[start:]]  # as it has it
    found = [[value, token, None] for value, token in zip(values, known, strict=True)]
    return {"text": "", "meta_info": {"prompt_tokens": len(ids), "input_token_logprobs": found}}


def openai(model: ServedModel, path: str, body: Any) -> Any:
    """Answer OpenAI's completions, and refuse what is not in them."""
    if path == "/v1/models":
        return _models(model, "somebody")
    if path != "/v1/completions":
        raise Refusal(404, "Not Found")
    if unknown := {"prompt_logprobs", "return_tokens_as_token_ids"} & set(body):
        raise Refusal(422, f"extra fields: {unknown}")
    return _echo(model, body, ids_known=False)


def shifted(model: ServedModel, path: str, body: Any) -> Any:
    """Answer with the log-probs of the next token."""
    if path == "/v1/models":
        return _models(model, "somebody")
    if "prompt_logprobs" in body:
        raise Refusal(400, "unknown field")
    return _echo(model, body, ids_known=False, shift=1)


def llama_cpp(model: ServedModel, path: str, body: Any) -> Any:
    """Answer as llama.cpp's server does: ignore ``echo`` and ``prompt_logprobs``."""
    if path == "/v1/models":
        return _models(model, "llamacpp", meta={"n_ctx_train": 8192})
    if path != "/v1/completions":
        raise Refusal(404, "File Not Found")
    generated = {"content": [{"id": 7, "token": " x", "bytes": [32, 120], "logprob": -0.4}]}
    return _completion([{"logprobs": generated} for _ in body["prompt"]], model)


def llama_cpp_python(model: ServedModel, path: str, body: Any) -> Any:
    """Answer as llama-cpp-python does: take no token ids."""
    if path == "/v1/models":
        return {"object": "list", "data": [{"id": model.name, "owned_by": "me"}]}
    raise Refusal(500, "[{'type': 'string_type', 'loc': ('body', 'prompt', 'str')}]")


DIALECTS: dict[str, Callable[[ServedModel, str, Any], Any]] = {
    **{"vllm": vllm, "vllm_v2": vllm_v2, "sglang": sglang, "openai": openai, "shifted": shifted},
    **{"llama.cpp": llama_cpp, "llama-cpp-python": llama_cpp_python},
}
