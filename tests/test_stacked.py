"""Generation with stacked weights: what each model alone would have said."""

import copy
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from swarmnode.generate.hf import HFGenerator
from swarmnode.rollout import Completion, Question

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from laboratory.stacked import StackedGenerator, SwarmGenerator  # noqa: E402
from laboratory.world import World, open_world  # noqa: E402

LIMIT = 8


@pytest.fixture(scope="module")
def world() -> World:
    return open_world(ROOT / "swarmnode" / "demo_model", 8)


@pytest.fixture(scope="module")
def models(world: World) -> list[LlamaForCausalLM]:
    """Three relatives of the shipped model, in float32 and different enough to answer apart."""
    return [blurred(world.model, 0.02, seed) for seed in range(3)]


def blurred(model: LlamaForCausalLM, noise: float, seed: int) -> LlamaForCausalLM:
    model = copy.deepcopy(model).float()
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights += noise * torch.randn(weights.shape, generator=chance)
    return model


def other_shape(world: World, **changes: Any) -> LlamaForCausalLM:
    """A random model of the tokenizer's vocabulary with grouped queries and an own head."""
    shape = {
        "vocab_size": world.model.config.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(5)
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).eval()


def questions(world: World, *places: int) -> list[Question]:
    """Held-out questions of all tasks, so of different lengths."""
    everything = [asked[i] for i in range(8) for asked in world.held_out.values()]
    return [everything[place] for place in places]


def stacked(
    world: World, models: Sequence[LlamaForCausalLM], kind: type = SwarmGenerator
) -> SwarmGenerator:
    return kind(
        models,
        world.prompts,
        (int(world.tokenizer.eos_token_id),),
        max_new_tokens=LIMIT,
        temperature=0.8,
        seeds=range(len(models)),
    )


def ids_of(answers: Sequence[Sequence[Completion]]) -> list[list[tuple[int, ...] | None]]:
    return [[completion.token_ids for completion in group] for group in answers]


def test_greedy_answers_are_those_of_each_model_alone(
    world: World, models: list[LlamaForCausalLM]
) -> None:
    swarm = [models[0], other_shape(world), *models[1:]]  # two shapes
    asked = [questions(world, *range(50)), questions(world, 3, 0, 8), [], questions(world, 9)]
    assert len({len(world.prompts.encode(question.prompt)) for question in asked[0]}) > 5
    found = stacked(world, swarm).greedy(asked)
    for model, theirs, answers in zip(swarm, asked, found, strict=True):
        alone = HFGenerator(
            model,
            world.prompts,
            (int(world.tokenizer.eos_token_id),),
            max_new_tokens=LIMIT,
            temperature=1.0,
            seed=0,
        ).greedy(theirs)
        for mine, other in zip(answers, alone, strict=True):
            assert (mine.token_ids, mine.text, mine.ended, mine.token_count) == (
                other.token_ids, other.text, other.ended, other.token_count,
            )  # fmt: skip
            assert mine.logps == pytest.approx(other.logps, abs=1e-4)
            assert mine.mean_logp == pytest.approx(other.mean_logp, abs=1e-4)
    ended = Counter(answer.ended for answer in found[0])
    assert min(ended[True], ended[False]) > 0
    assert ids_of([found[0][:4]]) != ids_of([found[3][:1], found[1]])


@pytest.mark.parametrize("kind", ["shipped", "grouped queries"])
def test_log_probabilities_are_those_of_a_plain_pass(
    world: World, models: list[LlamaForCausalLM], kind: str
) -> None:
    swarm = models if kind == "shipped" else [other_shape(world), blurred(other_shape(world), 1, 1)]
    asked = [questions(world, *range(node, 9 - node)) for node in range(len(swarm))]
    for model, theirs, answers in zip(
        swarm, asked, stacked(world, swarm).generate(asked, 3), strict=True
    ):
        for question, group in zip(theirs, answers, strict=True):
            assert len(group) == 3
            prompt = world.prompts.encode(question.prompt)
            for one in group:
                assert one.token_ids is not None
                with torch.no_grad():
                    logits = model(torch.tensor([[*prompt, *one.token_ids]])).logits[0]
                logp = torch.log_softmax(logits / 0.8, dim=-1)[len(prompt) - 1 : -1]
                expected = logp.gather(1, torch.tensor(one.token_ids)[:, None])[:, 0].tolist()
                assert one.logps == pytest.approx(expected, abs=1e-4)


def test_the_same_seed_gives_the_same_bits_and_later_calls_others(
    world: World, models: list[LlamaForCausalLM]
) -> None:
    asked = [questions(world, 0, 1), questions(world, 2), questions(world, 3, 4)]
    first, again = stacked(world, models), stacked(world, models)
    answers = first.generate(asked, 8)
    assert answers == again.generate(asked, 8)
    assert first.generate(asked, 8) != answers
    first.greedy(asked)  # uses no chance
    again.generate(asked, 8)
    assert first.generate(asked, 8) == again.generate(asked, 8)


def test_a_nodes_samples_do_not_depend_on_the_other_nodes(
    world: World, models: list[LlamaForCausalLM]
) -> None:
    mine = questions(world, 7, 1)
    crowded, alone = stacked(world, models), stacked(world, models)
    for others in (questions(world, *range(40)), questions(world, 5)):
        found = crowded.generate([others, mine, others[::-1]], 4)[1]
        assert ids_of(found) == ids_of(alone.generate([[], mine, []], 4)[1])


def test_weights_are_read_anew_in_each_call(world: World, models: list[LlamaForCausalLM]) -> None:
    changing = blurred(models[0], 0.0, 0)
    generator = stacked(world, [changing, models[1]])
    asked = [questions(world, 0, 1, 2)] * 2
    before = generator.greedy(asked)
    changing.load_state_dict(models[2].state_dict())
    after = generator.greedy(asked)
    assert ids_of([after[0]]) == ids_of(stacked(world, [models[2]]).greedy(asked[:1]))
    assert ids_of([after[0]]) != ids_of([before[0]])
    assert after[1] == before[1]


def test_first_tokens_come_as_often_as_the_model_says(world: World) -> None:
    count = 2000
    flat = other_shape(world, initializer_range=0.15)  # many tokens are probable
    models = [flat, flat, blurred(flat, 0.15, 0)]
    (question,) = questions(world, 0)
    asked = [question] * (count // 8)
    answers = stacked(world, models).generate([asked, [], asked], 8)
    for node in (0, 2):
        with torch.no_grad():
            logits = models[node](torch.tensor([world.prompts.encode(question.prompt)])).logits
        expected = count * torch.softmax(logits[0, -1] / 0.8, dim=-1)
        found = torch.zeros_like(expected)
        for group in answers[node]:
            for one in group:
                assert one.token_ids is not None
                found[one.token_ids[0]] += 1
        common = expected >= 5
        # Pearson's statistic; the rare tokens are one class.
        pairs = [*zip(found[common].tolist(), expected[common].tolist(), strict=True)]
        pairs.append((found[~common].sum().item(), expected[~common].sum().item()))
        statistic = sum((seen - mean) ** 2 / mean for seen, mean in pairs)
        freedom = len(pairs) - 1
        assert freedom >= 5
        # Its mean is the degrees of freedom, its variance twice that: five deviations.
        assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


def test_refuses_what_cannot_be_stacked(world: World, models: list[LlamaForCausalLM]) -> None:
    wider = other_shape(world)
    with pytest.raises(ValueError, match="one shape"):
        stacked(world, [models[0], wider], StackedGenerator)
    stacked(world, [models[0], wider])  # a stack each
    for changes in (
        {"attention_bias": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ):
        with pytest.raises(ValueError, match="stacked"):
            stacked(world, [other_shape(world, **changes)])
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    qwen = Qwen2ForCausalLM(Qwen2Config(vocab_size=9, **small, **heads))
    with pytest.raises(ValueError, match="Qwen2ForCausalLM"):
        stacked(world, [qwen])
    short = stacked(world, [other_shape(world, max_position_embeddings=LIMIT + 2)])
    with pytest.raises(ValueError, match="context"):
        short.greedy([questions(world, 0)])
