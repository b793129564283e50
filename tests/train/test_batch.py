import math

import pytest
import torch

from swarmnode.train.batch import Sample, pack, split

CPU = torch.device("cpu")


def test_split_keeps_padded_tokens_within_the_budget_longest_first() -> None:
    # Sorted: 7 (index 1), 5 (3), 4 (0), 4 (2). Budget 14: 7+5 → 2 × 7 = 14 fits, a third row
    # would be 3 × 7 = 21; then 4+4 → 2 × 4 = 8.
    assert split([4, 7, 4, 5], 14) == [(1, 3), (0, 2)]


def test_split_gives_a_sequence_over_the_budget_its_own_group() -> None:
    assert split([3, 50, 3], 10) == [(1,), (0, 2)]


def test_split_of_nothing_is_nothing() -> None:
    assert split([], 10) == []


def test_pack_pads_right_and_marks_completions() -> None:
    samples = [
        Sample((5, 6), (7, 8, 9), 0.5, external=False, sampler_logps=(-1.0, -2.0, -3.0)),
        Sample((3,), (4,), -1.0, external=True, sampler_mean_logp=-0.25),
    ]
    batch = pack(samples, (1, 0), pad_token_id=0, device=CPU)
    assert batch.sample_indices == (1, 0)
    assert batch.input_ids.tolist() == [[3, 4, 0, 0, 0], [5, 6, 7, 8, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.completion_mask.int().tolist() == [[0, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    assert batch.completion_lengths == (1, 3)
    assert batch.token_rows.tolist() == [0, 1, 1, 1]
    assert batch.advantages.tolist() == [-1.0, 0.5]
    assert batch.external.tolist() == [True, False]
    assert math.isnan(batch.sampler_logps[0])
    assert batch.sampler_logps[1:].tolist() == [-1.0, -2.0, -3.0]
    assert batch.sampler_mean_logps[0] == -0.25
    assert math.isnan(batch.sampler_mean_logps[1])


def test_a_pad_id_that_is_also_the_eos_does_not_hide_a_trained_eos() -> None:
    batch = pack([Sample((5,), (7, 2), 1.0, False), Sample((5,), (2,), 1.0, False)], (0, 1), 2, CPU)
    assert batch.completion_mask.sum() == 3
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize(("prompt", "completion"), [((), (1,)), ((1,), ())])
def test_a_sample_without_prompt_or_completion_is_a_bug(
    prompt: tuple[int, ...], completion: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Sample(prompt, completion, 1.0, external=False)


def test_sampler_logps_must_match_the_completion() -> None:
    with pytest.raises(ValueError, match="1 sampler log-probabilities for 2"):
        Sample((1,), (2, 3), 1.0, external=False, sampler_logps=(-1.0,))
