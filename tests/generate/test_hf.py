"""The decode loop: greedy as transformers does it, sampling from the stated distribution."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.generate.hf import HFGenerator
from swarmnode.rollout import Question

VOCABULARY = 40
NOT_A_TOKEN = VOCABULARY + 1  # an EOS that is never sampled


@dataclass
class LetterPrompts:
    """Stands for a `PromptEncoder`: "a" is token 1, "b" token 2 …, and back."""

    codec = SimpleNamespace(decode=lambda ids: "".join(chr(ord("a") + id - 1) for id in ids))

    def encode(self, prompt: str) -> list[int]:
        return [ord(letter) - ord("a") + 1 for letter in prompt]


def question(prompt: str) -> Question:
    return Question("letters", b"\0\0\0\0", 0, prompt, "", False)


PROMPTS = ["abcdefg", "hi", "jklmnopqrstuv", "a"]
QUESTIONS = [question(prompt) for prompt in PROMPTS]


def llama(**settings: int) -> LlamaForCausalLM:
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,  # far enough apart that rounding decides no argmax
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(shape | settings))).eval()


def qwen2() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    return Qwen2ForCausalLM(config).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.4
    )
    return GPT2LMHeadModel(config).eval()


def generator(model, eos_ids: Sequence[int] = (NOT_A_TOKEN,), **changes) -> HFGenerator:
    settings = {"max_new_tokens": 10, "temperature": 1.0, "seed": 7} | changes
    return HFGenerator(model, LetterPrompts(), eos_ids, **settings)


def transformers_greedy(model, prompt: str, eos_id: int) -> list[int]:
    ids = torch.tensor([LetterPrompts().encode(prompt)])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=10,
        eos_token_id=eos_id,
        pad_token_id=0,
    )
    return out[0, ids.shape[1] :].tolist()


def distribution(model, prompt: str, ids: Sequence[int], temperature: float) -> torch.Tensor:
    """Log-probabilities (T, V) of each completion token by one unpadded pass without a cache."""
    start = LetterPrompts().encode(prompt)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([start + list(ids)])).logits[0]
    return torch.log_softmax(logits[len(start) - 1 : -1] / temperature, dim=-1)


@pytest.mark.parametrize("build", [llama, qwen2, gpt2])
def test_greedy_is_transformers_greedy_for_prompts_of_different_lengths(build):
    model = build()
    never_ends = [transformers_greedy(model, prompt, NOT_A_TOKEN) for prompt in PROMPTS]
    # An EOS that ends some of them early, so that sequences leave the batch.
    eos_id = never_ends[0][3]
    expected = [transformers_greedy(model, prompt, eos_id) for prompt in PROMPTS]
    assert len({len(ids) for ids in expected}) > 1
    answers = generator(model, [eos_id]).greedy(QUESTIONS)
    assert [list(answer.token_ids) for answer in answers] == expected
    assert [answer.ended for answer in answers] == [ids[-1] == eos_id for ids in expected]


@pytest.mark.parametrize("build", [llama, qwen2, gpt2])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_logps_are_those_of_a_full_pass_at_the_sampling_temperature(build, temperature):
    model = build()
    # About one in ten tokens ends a sequence, so most leave the batch before the limit.
    sampler = generator(model, [3, 9, 27, 30], temperature=temperature)
    for prompt, group in zip(PROMPTS, sampler.generate(QUESTIONS, 6), strict=True):
        for completion in group:
            logp = distribution(model, prompt, completion.token_ids, temperature)
            expected = logp.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
            assert torch.allclose(torch.tensor(completion.logps), expected, atol=1e-4)
            assert completion.mean_logp == pytest.approx(expected.mean().item(), abs=1e-4)


def test_groups_keep_the_order_of_the_questions():
    model = llama()
    sampler = generator(model, max_batch_tokens=60)  # several batches, groups split over them
    for prompt, group in zip(PROMPTS, sampler.generate(QUESTIONS, 3), strict=True):
        assert len(group) == 3
        for completion in group:
            logp = distribution(model, prompt, completion.token_ids, 1.0)
            expected = logp.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
            assert torch.allclose(torch.tensor(completion.logps), expected, atol=1e-4)


def test_eos_is_kept_in_the_tokens_and_not_in_the_text():
    model = llama()
    eos_id = transformers_greedy(model, "abc", NOT_A_TOKEN)[2]
    (answer,) = generator(model, [eos_id]).greedy([question("abc")])
    assert answer.ended
    assert answer.token_ids[-1] == eos_id
    assert answer.text == LetterPrompts.codec.decode(answer.token_ids[:-1])
    assert answer.token_count == len(answer.token_ids) == len(answer.logps) <= 3


def test_a_completion_cut_by_the_limit_has_not_ended():
    (answer,) = generator(llama(), max_new_tokens=4).greedy([question("abc")])
    assert not answer.ended
    assert answer.token_count == 4
    assert answer.text == LetterPrompts.codec.decode(answer.token_ids)


def test_equal_questions_get_independent_completions():
    first, second = generator(llama()).generate([question("abc"), question("abc")], 4)
    assert [c.token_ids for c in first] != [c.token_ids for c in second]


def test_restoring_the_state_repeats_the_samples():
    sampler = generator(llama())
    sampler.generate(QUESTIONS, 2)
    state = sampler.state()
    expected = sampler.generate(QUESTIONS, 4)
    assert sampler.generate(QUESTIONS, 4) != expected
    another = generator(llama(), seed=99)
    another.restore(state)
    assert another.generate(QUESTIONS, 4) == expected


def test_greedy_uses_no_chance():
    sampler = generator(llama())
    state = sampler.state()
    sampler.greedy(QUESTIONS)
    assert sampler.state() == state


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_sampled_frequencies_follow_the_distribution(temperature):
    model = llama(vocab_size=8, initializer_range=0.2)
    draws = 4000
    sampler = generator(model, temperature=temperature, max_new_tokens=1)
    (group,) = sampler.generate([question("abc")], draws)
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in group]), minlength=8)
    expected = distribution(model, "abc", [0], temperature)[0].exp() * draws
    assert expected.min() > 5, "chi-square needs at least five expected draws per cell"
    # Pearson: Σ (observed − expected)² / expected, 8 − 1 = 7 degrees of freedom; 99.9 % of fair
    # samples stay below 24.32.
    assert ((counts - expected) ** 2 / expected).sum() < 24.32


def test_model_keeps_its_mode_and_gets_no_gradient():
    model = llama()
    model.train()
    generator(model).generate(QUESTIONS, 2)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_completions_stop_at_the_end_of_the_context():
    model = llama(max_position_embeddings=8)
    (answer,) = generator(model).greedy([question("abcde")])
    assert answer.token_count == 3  # 8 − 5


def test_prompt_longer_than_the_context_is_the_users_mistake():
    with pytest.raises(ConfigError, match="8 tokens does not fit into the model's context of 8"):
        generator(llama(max_position_embeddings=8)).greedy([question("abcdefgh")])


class SmallMemory(LlamaForCausalLM):
    """Runs out of memory with more than `rows` sequences."""

    rows = 3

    def forward(self, input_ids=None, position_ids=None, logits_to_keep=0, **others):
        if input_ids.shape[0] > self.rows:
            raise torch.OutOfMemoryError("made up")
        return super().forward(
            input_ids=input_ids,
            position_ids=position_ids,
            logits_to_keep=logits_to_keep,
            **others,
        )


def test_a_batch_that_does_not_fit_is_split():
    model = SmallMemory(llama().config).eval()
    model.load_state_dict(llama().state_dict())
    answers = generator(model).greedy([question(prompt) for prompt in PROMPTS * 3])
    expected = generator(llama()).greedy(QUESTIONS) * 3
    assert [a.token_ids for a in answers] == [e.token_ids for e in expected]


def test_one_completion_that_does_not_fit_is_the_machines_limit():
    model = SmallMemory(llama().config).eval()
    model.rows = 0
    with pytest.raises(SwarmNodeError, match="does not fit into the device's memory"):
        generator(model).greedy(QUESTIONS)


class WithoutPositions(LlamaForCausalLM):
    """A model that takes no positions, and refuses a mask that hides something."""

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, use_cache=None):
        assert attention_mask.all()
        return super().forward(
            input_ids=input_ids, past_key_values=past_key_values, use_cache=use_cache
        )


def test_a_model_without_positions_is_never_padded():
    model = WithoutPositions(llama().config).eval()
    model.load_state_dict(llama().state_dict())
    answers = generator(model).greedy(QUESTIONS)
    expected = generator(llama()).greedy(QUESTIONS)
    assert [a.token_ids for a in answers] == [e.token_ids for e in expected]
