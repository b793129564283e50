from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import MistralConfig, MistralForCausalLM

from swarmnode.train.batch import Sample, pack
from swarmnode.train.prefix import predicting_states, predicting_states_shared, shares_prompts

Tiny = Callable[..., nn.Module]

# Prompts of 6, 1 and 3 tokens; the first and last have several completions, and the prompt
# (3, 4, 5) is the beginning of the first.
GROUPS = [
    Sample((3, 4, 5, 6, 7, 8), (9, 10, 11, 2), 1.0, False),
    Sample((3, 4, 5, 6, 7, 8), (9, 2), -1.0, False),
    Sample((12,), (9, 13, 2), 1.0, True),
    Sample((3, 4, 5), (9, 10, 11, 12, 13, 2), 1.0, True),
    Sample((3, 4, 5), (2,), -1.0, True),
]


def tensors(samples: list[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    batch = pack(samples, tuple(range(len(samples))), 0, torch.device("cpu"))
    return batch.input_ids, batch.attention_mask, batch.completion_mask


@pytest.mark.parametrize("family", ["llama", "llama-tied", "qwen2", "qwen3", "gemma", "gpt2"])
def test_states_and_gradients_equal_those_of_full_sequences(tiny: Tiny, family: str) -> None:
    model = tiny(family).double()
    results = []
    for states in (predicting_states, predicting_states_shared):
        hidden = states(model.get_decoder(), *tensors(GROUPS))
        assert hidden.shape == (4 + 2 + 3 + 6 + 1, 32)
        weights = torch.linspace(-1, 1, hidden.numel()).view_as(hidden)
        loss = (hidden * weights).sum()
        decoder_parameters = list(model.get_decoder().parameters())
        results.append((hidden, *torch.autograd.grad(loss, decoder_parameters)))
    # The norms of all but GPT-2 compute in float32 whatever the dtype.
    tolerance = 1e-9 if family == "gpt2" else 1e-4
    torch.testing.assert_close(results[0], results[1], rtol=tolerance, atol=tolerance)


def test_each_distinct_prompt_runs_once(tiny: Tiny) -> None:
    decoder = tiny("llama").get_decoder()
    shapes: list[tuple[int, ...]] = []
    decoder.embed_tokens.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    predicting_states_shared(decoder, *tensors(GROUPS))
    # Three prompts, the longest 6 − 1 tokens; five completions, the longest 6 tokens.
    assert shapes == [(3, 5), (5, 6)]


def test_prompts_of_one_token_share_nothing(tiny: Tiny) -> None:
    decoder = tiny("llama").get_decoder()
    arguments = tensors([Sample((3,), (4, 5), 1.0, False), Sample((6,), (7,), 1.0, False)])
    torch.testing.assert_close(
        predicting_states_shared(decoder, *arguments), predicting_states(decoder, *arguments)
    )


def test_models_with_a_sliding_window_do_not_share() -> None:
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    windowed = MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=8)).eval()
    full = MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=None)).eval()
    assert not shares_prompts(windowed)
    assert shares_prompts(full)


class IgnoresPositions(nn.Module):
    """A decoder that numbers the completion's positions from the cache's length."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, position_ids: Tensor | None = None, **arguments: object) -> object:
        return self.decoder(**arguments)


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.config = model.config
        self.decoder = IgnoresPositions(model.get_decoder())

    def get_decoder(self) -> nn.Module:
        return self.decoder


def test_a_decoder_that_ignores_positions_does_not_share(tiny: Tiny) -> None:
    # With 0.02-wide weights attention is nearly uniform and positions hardly matter: the hardest
    # case for the probe.
    model = tiny("llama", initializer_range=0.02)
    assert shares_prompts(model)
    assert not shares_prompts(Wrapped(model))
