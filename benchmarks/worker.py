"""A process that keeps one method's model and scores when it is told to, over a pipe."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "LMEVAL_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}
WARM_UP = [
    ([{"role": "user", "content": "Name a colour."}], text) for text in ("Red.", "Blue, or so.")
]


class Worker:
    """The parent's end of a worker process. Only one of them works at a time."""

    def __init__(self, method: str, dtype: str, threads: int) -> None:
        os.environ.update(QUIET, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(method, dtype, threads, theirs), daemon=True
        )
        self._process.start()
        theirs.close()
        self.after_load_mb = self._answer()["after_load_mb"]

    def ask(self, **job: Any) -> dict[str, Any]:
        """Let the process do a job and return what it found.

        Raises:
            RuntimeError: It failed; the message ends with the error there.
        """
        self._pipe.send(job)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._pipe.send(None)
        self._process.join(10)
        self._process.kill()

    def _answer(self) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the process ended with {self._process.exitcode}") from None
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def once(method: str, dtype: str, threads: int, **job: Any) -> Any:
    """Do one job in a process of its own and return the value of it."""
    worker = Worker(method, dtype, threads)
    try:
        return worker.ask(**job)["value"]
    finally:
        worker.close()


def _serve(method: str, dtype: str, threads: int, pipe: Any) -> None:
    """Load, warm up, then answer jobs until there are no more."""
    try:
        import torch
        from measure import resident_mb

        torch.set_num_threads(threads)
        do = {"products": _products, "float64": _float64}.get(method) or _method(method)
        job = do(dtype)
        pipe.send({"after_load_mb": resident_mb()["now"]})
        while (asked := pipe.recv()) is not None:
            pipe.send(job(**asked))
    except Exception:
        pipe.send({"error": traceback.format_exc(limit=-3)})


def _method(name: str) -> Any:
    """Return what opens a method and returns its turn."""

    def opened(dtype: str) -> Any:
        from measure import Positions, causal_lms, reset_peak, resident_mb
        from pair import NotRun
        from peers import METHODS

        method = METHODS[name](dtype)
        if name != "hf-auto":  # its warm-up would be 320 rows
            method.score(method.prepare(WARM_UP))
        models = causal_lms()

        def turn(rows: Sequence[Any], check: Sequence[int], count: bool) -> dict[str, Any]:
            try:
                prepared = method.prepare(rows)
            except NotRun as reason:
                return {"skipped": str(reason)}
            positions = Positions()
            reset_peak()
            wall, cpu = time.perf_counter(), time.process_time()
            with positions.counting(models) if count else nullcontext():
                found = method.score(prepared)
            return {
                "cpu": time.process_time() - cpu,
                "wall": time.perf_counter() - wall,
                "peak_mb": resident_mb()["peak"],
                "backbone": positions.backbone,
                "head": positions.head,
                "logprobs": [[side.logprobs[index] for index in check] for side in found],
                "pairs": [[side.pairs[index] for index in check if side.pairs] for side in found],
            }

        return turn

    return opened


def _products(dtype: str) -> Any:
    """Return a job that measures matrix products in a model's shapes."""
    import torch
    from measure import product_shapes, product_speed

    def measured(config: Any, square: int, seconds: float) -> dict[str, Any]:
        shapes = product_shapes(config, square)
        kind = getattr(torch, dtype)
        return {
            "value": {
                name: product_speed(shape, kind, seconds=seconds) for name, shape in shapes.items()
            }
        }

    return measured


def _float64(_dtype: str) -> Any:
    """Return a job that scores rows one by one in float64, with transformers alone."""
    import torch
    from pair import load_model

    model = load_model("float32").double()

    @torch.inference_mode()
    def one(pair: Any) -> float:
        ids = torch.tensor([[*pair.prompt_ids, *pair.response_ids]])
        logits = model(input_ids=ids, logits_to_keep=len(pair.response_ids) + 1).logits[0, :-1]
        targets = torch.tensor(pair.response_ids).unsqueeze(-1)
        return float(logits.log_softmax(-1).gather(-1, targets).sum())

    def scored(pairs: Sequence[Any]) -> dict[str, Any]:
        return {"value": [one(pair) for pair in pairs]}

    return scored
