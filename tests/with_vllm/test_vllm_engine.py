"""The real engine: what transformers would say, after every hand-over, kill and restart.

One process serves the tests of one model: its start takes 20 s on a quiet machine.
"""

import copy
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from engine_contract import check_engine
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from swarmnode import config
from swarmnode.config import ModelSettings, Settings
from swarmnode.generate.encode import text_codec
from swarmnode.generate.engine import Batch, EngineFailed, Request
from swarmnode.generate.engine_client import EngineProcess
from swarmnode.generate.prompt import prompt_encoder
from swarmnode.generate.vllm import VLLMGenerator
from swarmnode.generate.weights import handed_over
from swarmnode.generation import make_engine, make_generator, open_generator
from swarmnode.rollout import Question
from swarmnode.train.policy import Policy
from swarmnode.train.policy import load as load_policy

pytestmark = pytest.mark.vllm

VOCABULARY = 96
EOS = 95
PROMPTS = [(1, 2, 3), (4, 5, 6, 7, 8, 9), (10,), tuple(range(11, 51))]
NEW_TOKENS = 12
# Two programs' float32 on one CPU: sums in another order, over 2 layers and 96 words.
ROUNDING = 2e-4


def qwen2() -> PreTrainedModel:
    shape = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen2Config(
        **shape, **heads, vocab_size=VOCABULARY, max_position_embeddings=128, initializer_range=0.3
    )
    return Qwen2ForCausalLM(config)


def qwen3() -> PreTrainedModel:
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    config = Qwen3Config(
        **shape, **heads, vocab_size=VOCABULARY, max_position_embeddings=128, initializer_range=0.3
    )
    return Qwen3ForCausalLM(config)


def gpt2() -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=2, n_positions=128,
        initializer_range=0.3,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def saved(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model as it comes from its folder, which the engine reads the configuration in."""
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder).eval()


def changed(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Another policy with the same shape, as far away as training never takes it at once."""
    other = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return other


def engine_for(model: PreTrainedModel) -> EngineProcess:
    engine, padding = make_engine(model, [EOS], Settings(), threads=1)
    assert isinstance(engine, EngineProcess)
    assert padding is None
    return engine


def greedy_of(model: PreTrainedModel, prompt: Sequence[int]) -> list[int]:
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
        max_new_tokens=NEW_TOKENS, eos_token_id=EOS, pad_token_id=0,
    )  # fmt: skip
    return out[0, ids.shape[1] :].tolist()


def logps_of(
    model: PreTrainedModel, prompt: Sequence[int], ids: Sequence[int], temperature: float
) -> Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0]
    logp = torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, dim=-1)
    return logp.gather(1, torch.tensor(ids)[:, None])[:, 0]


def check_against_transformers(engine: EngineProcess, model: PreTrainedModel) -> None:
    requests = tuple(Request(prompt, 5, NEW_TOKENS) for prompt in PROMPTS)
    engine.send(Batch(requests, None))
    answers = engine.receive()
    assert [one.ids for one in answers] == [greedy_of(model, prompt) for prompt in PROMPTS]
    for temperature in (None, 0.7, 1.0):
        engine.send(Batch(requests, temperature))
        for prompt, one in zip(PROMPTS, engine.receive(), strict=True):
            expected = logps_of(model, prompt, one.ids, temperature or 1.0)
            assert torch.tensor(one.logps) == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("build", [qwen2, qwen3, gpt2])
def test_after_every_hand_over_it_says_what_transformers_says(build, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = saved(build(), tmp_path)
    engine = engine_for(model)
    try:
        engine.start(128)
        engine.load(handed_over(model), 0)
        check_against_transformers(engine, model)
        other = changed(model, 1)
        # Without the hand-over it says what the old weights say.
        engine.send(Batch((Request(PROMPTS[3], 5, NEW_TOKENS),), None))
        assert engine.receive()[0].ids == greedy_of(model, PROMPTS[3])
        assert greedy_of(model, PROMPTS[3]) != greedy_of(other, PROMPTS[3])
        engine.load(handed_over(other), 1)
        check_against_transformers(engine, other)
        if build is qwen2:
            _check_lora(engine, model)
            _check_bad_weights(engine, model)
    finally:
        engine.close()


def _check_lora(engine: EngineProcess, model: PreTrainedModel) -> None:
    """Adapters on some projections: merged tensor by tensor on the way, the model as it was."""
    from peft import LoraConfig, get_peft_model

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    adapted = get_peft_model(copy.deepcopy(model), config).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    engine.load(handed_over(adapted), 2)
    check_against_transformers(engine, adapted)
    assert greedy_of(adapted, PROMPTS[3]) != greedy_of(model, PROMPTS[3])
    engine.load(handed_over(adapted.unload()), 3)  # the base is untouched
    check_against_transformers(engine, model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def _check_bad_weights(engine: EngineProcess, model: PreTrainedModel) -> None:
    """A weight that was left out would be random numbers from here on."""
    some = [(name, tensor) for name, tensor in handed_over(model) if "norm" not in name]
    with pytest.raises(EngineFailed, match="weights were not handed over, such as model"):
        engine.load(some, 4)
    assert not engine.runs


def test_it_keeps_the_contract_of_an_engine(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = saved(qwen2(), tmp_path)
    other = changed(model, 1)
    engine = engine_for(model)
    try:
        check_engine(engine, lambda k: handed_over(other if k else model))
    finally:
        engine.close()


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(ModelSettings(name="demo"))


@pytest.fixture(scope="module")
def vllm(policy: Policy) -> Iterator[VLLMGenerator]:
    """The shipped model, whose heads of 24 dimensions are padded for the CPU's kernel."""
    generator = _generator(policy, "vllm")
    assert isinstance(generator, VLLMGenerator)
    yield generator
    generator.close()


def _generator(policy: Policy, engine: str):
    prompts = prompt_encoder(policy.tokenizer, text_codec(policy.tokenizer))
    generate = {"max_new_tokens": 8, "temperature": 0.9, "engine_silence_s": 600.0}
    settings = config.load(None, {"generate": generate | {"engine": engine}})
    if engine == "hf":
        return make_generator(policy, prompts, settings, 7)
    return open_generator("vllm", policy, prompts, settings, 7, 1)


QUESTIONS = [
    Question("add", b"\0\0\0\0", 0, prompt, "", False)
    for prompt in ("Calculate 12 + 7.", "Calculate 3 + 44.", "Calculate 8 - 5 + 2.")
]


def test_the_shipped_model_answers_as_with_transformers(
    policy: Policy, vllm: VLLMGenerator
) -> None:
    expected = _generator(policy, "hf").greedy(QUESTIONS)
    got = vllm.greedy(QUESTIONS)
    assert [one.text for one in got] == [one.text for one in expected]
    assert [one.token_ids for one in got] == [one.token_ids for one in expected]
    for one, other in zip(got, expected, strict=True):
        assert one.logps == pytest.approx(other.logps, abs=ROUNDING)


def test_a_killed_engine_comes_back_with_the_same_answers(
    policy: Policy, vllm: VLLMGenerator
) -> None:
    state = vllm.state()
    before = [[one.token_ids for one in group] for group in vllm.generate(QUESTIONS, 4)]
    assert len({ids for group in before for ids in group}) > 3
    vllm.restore(state)
    vllm.begin(QUESTIONS, 4)
    assert vllm.engine_pid is not None
    os.kill(vllm.engine_pid, signal.SIGKILL)
    after = [[one.token_ids for one in group] for group in vllm.finish()]
    assert after == before
    assert vllm.report().restarts == 1
    assert not vllm.report().is_given_up
