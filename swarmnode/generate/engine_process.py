"""The engine process: vLLM, driven by frames on two pipes, fed with weights by shared memory.

vLLM's engine core runs inside this process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`), so there is one
process to kill. It dies with the node (`PR_SET_PDEATHSIG`) and at the end of its requests.

Weights come through vLLM's weight-transfer interface by a backend of our own: the node writes
tensors into memory that both map, announces names, types and offsets, and vLLM loads them layer by
layer. No file is written and nothing is pickled.

Frames both ways: 4 bytes of length, big endian, and JSON. Requests have "do"; replies are
`{"alive": n}` (n sequences unfinished, every few seconds), then `{"done": …}` or `{"error": text}`.
"""

import ctypes
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

LENGTH_BYTES: Final = 4
# A sign of life this often. A pipe holds some 2,000 of them: hours in which nobody need read.
ALIVE_EVERY_S: Final = 5.0
BACKEND: Final = "swarmnode"

_PR_SET_PDEATHSIG = 1


def main(requests: int, replies: int, memory: int, parent: int) -> None:
    """Answers requests from descriptor `requests` on `replies` until the former ends.

    `memory` is the descriptor of the memory that weights come in.
    """
    _die_with(parent)
    with os.fdopen(requests, "rb") as reader, os.fdopen(replies, "wb") as writer:
        served = _Served(writer, memory)
        while (request := read_frame(reader)) is not None:
            try:
                reply = {"done": served.serve(request)}
            except Exception as error:  # noqa: BLE001  the node decides, and starts this afresh
                reply = {"error": f"{type(error).__name__}: {error}"}
            write_frame(writer, reply)


def read_frame(reader: BinaryIO) -> dict[str, Any] | None:
    """The next frame; None at the end."""
    header = reader.read(LENGTH_BYTES)
    if len(header) < LENGTH_BYTES:
        return None
    frame: dict[str, Any] = json.loads(reader.read(int.from_bytes(header, "big")))
    return frame


def write_frame(writer: BinaryIO, value: dict[str, Any]) -> None:
    """Writes and flushes."""
    writer.write(frame_of(value))
    writer.flush()


def frame_of(value: dict[str, Any]) -> bytes:
    """`value` as bytes with their length in front."""
    payload = json.dumps(value).encode()
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


@dataclass
class _Served:
    """The engine, once it is started."""

    writer: BinaryIO
    memory: int
    llm: Any = None
    numbered: int = 0
    told_at: float = field(default_factory=time.monotonic)

    def serve(self, request: dict[str, Any]) -> Any:
        actions: dict[str, Callable[..., Any]] = {
            "start": self._start,
            "begin": self._begin,
            "weights": self._load,
            "finish": self._finish,
            "answer": self._answer,
            "sleep": self._sleep,
            "wake": self._wake,
        }
        return actions[request["do"]](**{k: v for k, v in request.items() if k != "do"})

    def _start(self, options: dict[str, Any]) -> None:
        from vllm import LLM
        from vllm.distributed.weight_transfer import WeightTransferEngineFactory

        WeightTransferEngineFactory.register_engine(BACKEND, _transfer_engine())
        self.llm = LLM(
            **options,
            # Ids in, ids out: text never reaches the engine.
            skip_tokenizer_init=True,
            # Weights come from the trainer; what is on disk is where it began.
            load_format="dummy",
            weight_transfer_config={"backend": BACKEND},
            # Of the distribution that is sampled from, temperature included.
            logprobs_mode="processed_logprobs",
            # Nothing of a model's own sampling defaults (top-k, penalties).
            generation_config="vllm",
            trust_remote_code=False,
        )
        self.llm.init_weight_transfer_engine({"init_info": {"memory": self.memory}})

    def _begin(self) -> None:
        self.llm.start_weight_update()

    def _load(self, tensors: list[Any]) -> None:
        self.llm.update_weights({"update_info": {"tensors": tensors}})

    def _finish(self, version: int) -> None:
        self.llm.finish_weight_update(str(version))
        # Keys and values of the former weights.
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache was in use and could not be emptied")

    def _answer(
        self, requests: list[tuple[list[int], int, int]], temperature: float, stop_ids: list[int]
    ) -> list[tuple[list[int], list[float]]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = self.llm.llm_engine
        places = {}
        for place, (prompt, seed, max_tokens) in enumerate(requests):
            self.numbered += 1
            places[str(self.numbered)] = place
            params = SamplingParams(
                temperature=temperature,
                seed=seed,
                max_tokens=max_tokens,
                logprobs=0,  # the sampled token's alone
                stop_token_ids=stop_ids,
                ignore_eos=True,  # stop_ids are the policy's, EOS among them
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            engine.add_request(str(self.numbered), {"prompt_token_ids": prompt}, params)
        answers: list[Any] = [None] * len(requests)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    answers[places[output.request_id]] = _sampled(output.outputs[0])
            self._tell(engine)
        return answers

    def _sleep(self) -> None:
        self.llm.sleep(level=2)

    def _wake(self) -> None:
        self.llm.wake_up()

    def _tell(self, engine: Any) -> None:
        if time.monotonic() - self.told_at >= ALIVE_EVERY_S:
            self.told_at = time.monotonic()
            write_frame(self.writer, {"alive": engine.get_num_unfinished_requests()})


def _sampled(output: Any) -> tuple[list[int], list[float]]:
    ids = list(output.token_ids)
    logps = [step[id].logprob for id, step in zip(ids, output.logprobs, strict=True)]
    return ids, logps


def _transfer_engine() -> Any:
    """The class of the weight-transfer backend; made here because its base is vLLM's."""
    import torch
    from vllm.distributed.weight_transfer.base import (
        WeightTransferEngine,
        WeightTransferInitInfo,
        WeightTransferUpdateInfo,
    )
    from vllm.model_executor.model_loader.reload import (
        finalize_layerwise_reload,
        initialize_layerwise_reload,
    )

    @dataclass
    class Memory(WeightTransferInitInfo):  # type: ignore[misc]  # its base has no types here
        memory: int

    @dataclass
    class Tensors(WeightTransferUpdateInfo):  # type: ignore[misc]  # the same
        tensors: list[tuple[str, str, list[int], int]]  # name, dtype, shape, offset

    class SharedMemory(WeightTransferEngine):  # type: ignore[misc]  # the same
        init_info_cls = Memory
        update_info_cls = Tensors

        def init_transfer_engine(self, init_info: Memory) -> None:
            self._memory = init_info.memory
            self._wanted = {name for name, _ in self.model.named_parameters()}
            self._loaded: set[str] = set()

        def start_weight_update(self) -> None:
            self._loaded = set()
            initialize_layerwise_reload(self.model)

        def receive_weights(self, update_info: Tensors) -> None:
            shared = mmap.mmap(self._memory, os.fstat(self._memory).st_size)  # it may have grown
            # Copied: vLLM keeps a layer's tensors until it has them all, and this memory is
            # written to again before.
            weights = [
                (name, _view(shared, dtype, shape, offset).to(self.device, copy=True))
                for name, dtype, shape, offset in update_info.tensors
            ]
            self._loaded |= self.model.load_weights(weights) or self._wanted

        def finish_weight_update(self) -> None:
            finalize_layerwise_reload(self.model, self.model_config)
            _process_tied(self.model)
            if missing := sorted(self._wanted - self._loaded):
                raise RuntimeError(
                    f"{len(missing)} weights were not handed over, such as {missing[0]}"
                )

        def shutdown(self) -> None:
            """Nothing: the memory goes with the process."""

    def _view(shared: mmap.mmap, dtype: str, shape: list[int], offset: int) -> torch.Tensor:
        kind, count = getattr(torch, dtype), torch.Size(shape).numel()
        return torch.frombuffer(shared, dtype=kind, count=count, offset=offset).view(shape)

    return SharedMemory


def _process_tied(model: Any) -> None:
    """Processes layers that share a weight, as an output head does with its embedding, once more.

    vLLM's reload does so for the layer that was loaded alone. On a CPU the other one keeps a packed
    copy: without this it would answer with the weights of before.
    """
    sharing: dict[int, list[Any]] = {}
    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if weight is not None and hasattr(layer, "quant_method"):
            sharing.setdefault(weight.data_ptr(), []).append(layer)
    for layers in sharing.values():
        for layer in layers if len(layers) > 1 else ():
            layer.quant_method.process_weights_after_loading(layer)


def _die_with(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before prctl could take effect
        sys.exit(1)
