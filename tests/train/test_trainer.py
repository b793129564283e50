import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from swarmnode.config import HybridSettings, TrainSettings
from swarmnode.errors import SwarmNodeError
from swarmnode.train.batch import Sample
from swarmnode.train.objectives.table import OBJECTIVES
from swarmnode.train.trainer import StepReport, Trainer

Tiny = Callable[..., nn.Module]
Draw = Callable[..., list[Sample]]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def train(model: nn.Module, samples: list[Sample], **settings: object) -> StepReport:
    return Trainer(model, TrainSettings(**settings), pad_token_id=0).step(samples)


def probabilities(model: nn.Module, prompt: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(dim=-1)


def test_probability_moves_towards_the_better_token(tiny: Tiny) -> None:
    model = tiny("llama-tied")
    trainer = Trainer(model, TrainSettings(lr=1e-3), pad_token_id=0)
    prompt = (3, 4, 5)
    before = probabilities(model, prompt)
    samples = [
        Sample(prompt, (10,), 1.0, external=False),
        Sample(prompt, (11,), -1.0, external=False),
    ]
    for _ in range(5):
        assert trainer.step(samples).skipped is None
    after = probabilities(model, prompt)
    assert after[10] > 1.2 * before[10]
    assert after[11] < 0.8 * before[11]
    assert trainer.policy_version == 5


def test_external_samples_train_like_own_ones(tiny: Tiny) -> None:
    own = [Sample((3, 4), (10, 2), 1.0, external=False), Sample((3, 4), (11,), -1.0, False)]
    external = [dataclasses.replace(s, external=True) for s in own]
    first, second = tiny("llama"), tiny("llama")
    train(first, own, lr=1e-3)
    train(second, external, lr=1e-3)
    torch.testing.assert_close(weights(first), weights(second), rtol=0, atol=0)


@pytest.mark.parametrize("budget_tokens", [1, 30, 60])
def test_result_does_not_depend_on_the_split(
    tiny: Tiny, draw_samples: Draw, budget_tokens: int
) -> None:
    samples = draw_samples(seed=4, count=10)
    # GPT-2, because Llama's norm computes in float32 whatever the dtype.
    whole, pieces = tiny("gpt2").double(), tiny("gpt2").double()
    # Two epochs, so that old log-probabilities meet the right samples too.
    one = train(whole, samples, lr=1e-2, epochs=2)
    many = train(pieces, samples, lr=1e-2, epochs=2, micro_batch_tokens=budget_tokens)
    assert one.micro_batches == 2
    assert many.micro_batches >= 6
    # Report sums are float32, weights float64.
    assert one.loss == pytest.approx(many.loss, rel=1e-5)
    assert one.grad_norm == pytest.approx(many.grad_norm, rel=1e-9)
    assert one.clip_ratio == many.clip_ratio
    torch.testing.assert_close(weights(whole), weights(pieces), rtol=1e-7, atol=1e-9)


def with_sampler(samples: list[Sample]) -> list[Sample]:
    """The same with log-probabilities of a sampler that is near, but not, the policy."""
    return [
        dataclasses.replace(s, sampler_mean_logp=-3.5)
        if s.external
        else dataclasses.replace(s, sampler_logps=(-3.0,) * len(s.completion_ids))
        for s in samples
    ]


EXTRAS = {"kl_weight": 0.1, "entropy_bonus": 0.01, "entropy_corridor": 0.1}


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
@pytest.mark.parametrize("extras", [{}, EXTRAS | {"external_weight": 0.5}], ids=["plain", "extras"])
def test_no_objective_depends_on_the_split(
    tiny: Tiny, draw_samples: Draw, objective: str, extras: dict[str, float]
) -> None:
    samples = with_sampler(draw_samples(seed=4, count=4))
    results = []
    for budget_tokens in (10_000, 20):
        model = tiny("gpt2").double()
        settings = TrainSettings(
            lr=1e-2, epochs=2, objective=objective, micro_batch_tokens=budget_tokens, **extras
        )
        trainer = Trainer(model, settings, pad_token_id=0)
        reports = [trainer.step(samples) for _ in range(2)]  # the second has an entropy history
        results.append((reports[1], weights(model)))
    (one, whole), (many, pieces) = results
    assert many.micro_batches > one.micro_batches
    assert one.loss == pytest.approx(many.loss, rel=1e-5, abs=1e-6)
    assert one.grad_norm == pytest.approx(many.grad_norm, rel=1e-7)
    assert one.clip_ratio == many.clip_ratio
    torch.testing.assert_close(whole, pieces, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_every_objective_moves_towards_the_better_token(tiny: Tiny, objective: str) -> None:
    model = tiny("llama-tied")
    trainer = Trainer(model, TrainSettings(lr=1e-3, objective=objective), pad_token_id=0)
    prompt = (3, 4, 5)
    before = probabilities(model, prompt)
    samples = [
        Sample(prompt, (10,), 1.0, external=False),
        Sample(prompt, (11,), -1.0, external=True),
    ]
    for _ in range(3):
        assert trainer.step(samples).skipped is None
    after = probabilities(model, prompt)
    assert after[10] > before[10]
    assert after[11] < before[11]


def test_separate_divisors_keep_long_foreign_completions_from_pushing_own_aside(
    tiny: Tiny,
) -> None:
    # Joint: own −1 · 1/10. Separate with λ = 1: −1 and −9/9, so own has half the loss.
    samples = [
        Sample((3,), (4,), 1.0, external=False),
        Sample((3,), (5, 6, 7, 8, 9, 10, 11, 12, 13), 1.0, external=True),
    ]
    assert train(tiny("llama"), samples).loss == pytest.approx(-1.0)
    assert train(tiny("llama"), samples, external_weight=1.0).loss == pytest.approx(-2.0)
    assert train(tiny("llama"), samples, external_weight=0.0).loss == pytest.approx(-1.0)
    # λ = 0: the foreign completion leaves no trace.
    alone, beside = tiny("llama"), tiny("llama")
    train(alone, samples[:1], lr=1e-3)
    train(beside, samples, lr=1e-3, external_weight=0.0)
    torch.testing.assert_close(weights(alone), weights(beside), rtol=1e-5, atol=1e-6)


def test_the_reference_is_the_model_the_run_started_from(tiny: Tiny, draw_samples: Draw) -> None:
    samples = draw_samples(seed=4, count=4)
    settings = TrainSettings(lr=1e-3, kl_weight=0.1)
    first = Trainer(tiny("llama"), settings, pad_token_id=0)
    reports = [first.step(samples) for _ in range(3)]
    assert reports[0].kl_reference == pytest.approx(0.0, abs=1e-6)
    assert reports[1].kl_reference is not None
    assert reports[2].kl_reference is not None
    assert reports[2].kl_reference > reports[1].kl_reference > 1e-4
    # A resumed run starts from the same weights and then loads: its reference is the same.
    second = Trainer(tiny("llama"), settings, pad_token_id=0)
    second.load_state(first.state())
    assert second.step(samples) == first.step(samples)
    assert train(tiny("llama"), samples).kl_reference is None


def test_the_kl_term_holds_the_policy_near_the_reference(tiny: Tiny, draw_samples: Draw) -> None:
    samples = draw_samples(seed=4, count=4)
    distances = []
    for kl_weight in (1e-9, 10.0):
        settings = TrainSettings(lr=3e-3, kl_weight=kl_weight)
        trainer = Trainer(tiny("llama"), settings, pad_token_id=0)
        distances.append([trainer.step(samples).kl_reference for _ in range(6)][-1])
    assert distances[1] < 0.5 * distances[0]


def test_an_outlying_advantage_is_set_to_zero_and_counted(tiny: Tiny) -> None:
    # One 1 and twelve 0: sqrt(12) = 3.46 σ.
    samples = [Sample((3,), (4,), float(i == 0), external=False) for i in range(13)]
    off, on = tiny("llama"), tiny("llama")
    before = weights(on)
    assert train(off, samples, lr=1e-2).outliers == 0
    assert train(on, samples, lr=1e-2, max_advantage_sigmas=3.0).outliers == 1
    torch.testing.assert_close(weights(on), before, rtol=0, atol=0)
    assert not torch.equal(weights(off)["lm_head.weight"], before["lm_head.weight"])


def test_the_entropy_bonus_raises_entropy(tiny: Tiny) -> None:
    reports = []
    model = tiny("llama")
    trainer = Trainer(model, TrainSettings(lr=1e-3, entropy_bonus=1.0), pad_token_id=0)
    # On-policy draws, as the estimate wants them.
    torch.manual_seed(0)
    for _ in range(12):
        tokens = torch.multinomial(probabilities(model, (3, 4)), 32, replacement=True).tolist()
        samples = [Sample((3, 4), (t,), 0.0, external=False) for t in tokens]
        reports.append(trainer.step(samples).entropy)
    assert reports[-1] > reports[0] + 0.1


def test_the_entropy_history_is_resumed(tiny: Tiny, draw_samples: Draw) -> None:
    samples = draw_samples(seed=1, count=5)
    settings = TrainSettings(lr=1e-2, entropy_corridor=0.5, entropy_low=0.999, entropy_high=1.001)
    first = Trainer(tiny("llama"), settings, pad_token_id=0)
    for _ in range(3):
        first.step(samples)
    assert first.state().optimizer["entropy_history"].shape == (3,)
    second = Trainer(tiny("llama", initializer_range=0.1), settings, pad_token_id=0)
    second.step(draw_samples(seed=9, count=5))
    second.load_state(first.state())
    assert second.step(samples) == first.step(samples)
    # Off, the history is neither kept nor in the way.
    plain = Trainer(tiny("llama"), TrainSettings(lr=1e-2), pad_token_id=0)
    plain.load_state(first.state())
    plain.step(samples)
    assert "entropy_history" not in plain.state().optimizer


def test_loss_is_the_token_mean_of_minus_advantage(tiny: Tiny) -> None:
    # ρ = 1: −(3 tokens · 1 + 1 token · (−2)) / 4 = −0.25
    report = train(
        tiny("llama"),
        [Sample((3,), (4, 5, 6), 1.0, external=False), Sample((3,), (7,), -2.0, external=True)],
    )
    assert report.loss == pytest.approx(-0.25)
    assert (report.tokens_own, report.tokens_external, report.samples) == (3, 1, 2)
    assert (report.micro_batches, report.optimizer_steps, report.skipped) == (1, 1, None)


def test_the_clip_acts_only_from_the_second_epoch_on(tiny: Tiny, draw_samples: Draw) -> None:
    samples = draw_samples(seed=5, count=6)
    assert train(tiny("llama"), samples, lr=0.05).clip_ratio == 0.0
    report = train(tiny("llama"), samples, lr=0.05, epochs=3)
    assert report.clip_ratio is not None
    assert report.clip_ratio > 0.1
    assert report.optimizer_steps == 3


def test_no_samples_takes_no_step(tiny: Tiny) -> None:
    model = tiny("llama")
    before = weights(model)
    trainer = Trainer(model, TrainSettings(lr=1e-2, weight_decay=0.1), pad_token_id=0)
    report = trainer.step([])
    assert report.skipped == "no-samples"
    assert report.loss is report.grad_norm is report.entropy is None
    assert (report.optimizer_steps, trainer.policy_version) == (0, 0)
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("advantage", [math.inf, math.nan, 3e38])
def test_a_step_that_is_not_finite_changes_nothing(tiny: Tiny, advantage: float) -> None:
    # 3e38 is finite in float32, so the loss is, too; its gradient's norm is not.
    model = tiny("llama")
    trainer = Trainer(model, TrainSettings(lr=1e-2), pad_token_id=0)
    good = Sample((3, 4), (5, 6), 1.0, external=False)
    trainer.step([good])
    before = weights(model)
    moments = {name: t.clone() for name, t in trainer.state().optimizer.items()}
    report = trainer.step([good, dataclasses.replace(good, advantage=advantage)])
    assert report.skipped == "non-finite"
    assert report.grad_norm is None
    assert (report.optimizer_steps, trainer.policy_version) == (0, 1)
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)
    torch.testing.assert_close(trainer.state().optimizer, moments, rtol=0, atol=0)
    assert trainer.step([good]).skipped is None


def test_without_the_check_one_bad_sample_destroys_the_weights(tiny: Tiny) -> None:
    model = tiny("llama")
    adamw = torch.optim.AdamW(model.parameters())
    logps = model(input_ids=torch.tensor([(3, 4)])).logits[0, 0].log_softmax(dim=-1)
    torch.autograd.backward(-math.inf * logps[4])
    adamw.step()
    assert all(w.isnan().any() for w in weights(model).values())


def test_reports_the_gap_between_sampler_and_policy(tiny: Tiny) -> None:
    model = tiny("llama")
    with torch.no_grad():
        all_logps = model(input_ids=torch.tensor([(3, 4, 5)])).logits[0].log_softmax(dim=-1)
    first, second = all_logps[0, 4].item(), all_logps[1, 5].item()
    report = train(
        model,
        [
            # Gaps 0.5 and 0.1 over two tokens; the sample without sampler_logps does not count.
            Sample((3,), (4, 5), 1.0, False, sampler_logps=(first + 0.5, second + 0.1)),
            Sample((3,), (4, 5), 1.0, False),
            # A peer's mean over its own tokens against ours: 0.25, and −0.75 for the other.
            Sample((3,), (4, 5), 1.0, True, sampler_mean_logp=(first + second) / 2 + 0.25),
            Sample((3,), (4,), 1.0, True, sampler_mean_logp=first - 0.75),
            Sample((3,), (4,), 1.0, True),
        ],
    )
    assert report.kl_own == pytest.approx(0.3, abs=1e-5)
    assert report.gap_own == pytest.approx(0.3, abs=1e-5)
    # e^−d + d − 1: 0.106531 and 0.004837
    assert report.kl_own_k3 == pytest.approx((0.106531 + 0.004837) / 2, abs=1e-5)
    assert report.kl_external == pytest.approx(-0.25, abs=1e-5)
    assert train(model, [Sample((3,), (4,), 1.0, False)]).kl_own is None


def test_temperature_is_the_samplers(tiny: Tiny) -> None:
    model = tiny("llama")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([(3,)])).logits[0, 0]
    sampler_logp = (logits / 0.5).log_softmax(dim=-1)[4].item()
    sample = Sample((3,), (4,), 1.0, external=False, sampler_logps=(sampler_logp,))
    report = Trainer(model, TrainSettings(), 0, temperature=0.5).step([sample])
    assert report.kl_own == pytest.approx(0.0, abs=1e-5)


def test_dropout_is_off_in_training(tiny: Tiny, draw_samples: Draw) -> None:
    reports = []
    for seed in (1, 2):
        model = tiny("gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5).train()
        torch.manual_seed(seed)
        reports.append(train(model, draw_samples(seed=6, count=4)))
        assert not model.training
    assert reports[0] == reports[1]


class RowLimit:
    """A forward hook: a device whose memory holds `rows` sequences; a GPU or a CPU."""

    def __init__(self, rows: int, device: str = "cuda") -> None:
        self.rows = rows
        self.device = device
        self.failures = 0

    def __call__(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        if len(args[0]) > self.rows:
            self.failures += 1
            if self.device == "cpu":
                torch.empty(2**60)  # more than any machine has: what torch really says then
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_out_of_memory_trains_on_in_smaller_micro_batches(
    tiny: Tiny, draw_samples: Draw, device: str
) -> None:
    samples = draw_samples(seed=7, count=8)
    unlimited, limited = tiny("gpt2").double(), tiny("gpt2").double()
    limit = RowLimit(3, device)
    limited.get_input_embeddings().register_forward_pre_hook(limit)
    trainer = Trainer(limited, TrainSettings(lr=1e-3), pad_token_id=0)
    report = trainer.step(samples)
    expected = train(unlimited, samples, lr=1e-3)
    assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-9)
    torch.testing.assert_close(weights(limited), weights(unlimited), rtol=1e-7, atol=1e-9)
    failures = limit.failures
    assert failures > 0
    trainer.step(samples)
    assert limit.failures == failures  # the smaller size is kept


def test_memory_that_runs_out_in_the_backward_pass_loses_nothing(
    tiny: Tiny, draw_samples: Draw
) -> None:
    samples = draw_samples(seed=7, count=8)
    unlimited, limited = tiny("gpt2").double(), tiny("gpt2").double()
    left = [1]

    def run_out(gradient: Tensor) -> Tensor:
        if left:
            left.pop()
            torch.empty(2**60)
        return gradient

    # Gradients of later layers are there by then.
    limited.get_input_embeddings().weight.register_hook(run_out)
    report = train(limited, samples, lr=1e-3)
    expected = train(unlimited, samples, lr=1e-3)
    assert report.micro_batches > expected.micro_batches
    assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-9)
    torch.testing.assert_close(weights(limited), weights(unlimited), rtol=1e-7, atol=1e-9)


def test_another_error_is_not_taken_for_lack_of_memory(tiny: Tiny, draw_samples: Draw) -> None:
    model = tiny("llama")

    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    model.get_input_embeddings().register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(model, draw_samples(seed=7, count=3))


def test_a_sample_that_never_fits_is_an_environment_error(tiny: Tiny, draw_samples: Draw) -> None:
    model = tiny("llama")
    before = weights(model)
    trainer = Trainer(model, TrainSettings(), pad_token_id=0)
    model.get_input_embeddings().register_forward_pre_hook(RowLimit(0))
    with pytest.raises(SwarmNodeError, match="out of memory on one sample of") as caught:
        trainer.step(draw_samples(seed=7, count=3))
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())


def test_bfloat16_weights_follow_their_float32_masters(tiny: Tiny) -> None:
    model = tiny("llama").bfloat16()
    before = weights(model)
    trainer = Trainer(model, TrainSettings(lr=1e-5), pad_token_id=0)
    sample = Sample((3, 4), (5, 6), 1.0, external=False)
    for _ in range(60):
        trainer.step([sample])
    moved = sum((w != before[name]).sum().item() for name, w in weights(model).items())
    assert moved > 1000
    for name, w in weights(model).items():
        assert torch.equal(w, trainer.state().optimizer[f"master.{name}"].bfloat16())


def test_without_masters_small_updates_of_bfloat16_weights_are_lost() -> None:
    weight = nn.Parameter(torch.full((100,), 0.5, dtype=torch.bfloat16))
    adamw = torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.0)
    for _ in range(60):
        weight.grad = torch.ones_like(weight)
        adamw.step()
    # Neighbours of 0.5 are 0.002 away: sixty updates of 1e-5 each round to nothing.
    assert torch.equal(weight, torch.full_like(weight, 0.5))


def test_weight_decay_spares_norms(tiny: Tiny) -> None:
    model = tiny("llama")
    before = weights(model)
    # No gradient reaches the weights: only decay can move them.
    train(model, [Sample((3,), (4,), 0.0, external=False)], lr=0.1, weight_decay=0.5)
    after = weights(model)
    assert torch.equal(after["model.norm.weight"], before["model.norm.weight"])
    # w ← w − lr · decay · w = 0.95 w
    torch.testing.assert_close(after["lm_head.weight"], 0.95 * before["lm_head.weight"])


def test_frozen_parameters_stay(tiny: Tiny, draw_samples: Draw) -> None:
    model = tiny("llama")
    model.get_input_embeddings().weight.requires_grad_(False)
    before = weights(model)
    train(model, draw_samples(seed=8, count=3), lr=0.1, weight_decay=0.5)
    after = weights(model)
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    assert not torch.equal(after["lm_head.weight"], before["lm_head.weight"])


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_continues_bit_for_bit(
    tiny: Tiny, draw_samples: Draw, family: str, dtype: torch.dtype
) -> None:
    settings = TrainSettings(lr=1e-3, weight_decay=0.01, epochs=2)
    original = tiny(family).to(dtype)
    first = Trainer(original, settings, pad_token_id=0)
    first.step(draw_samples(seed=1, count=5))
    resumed = tiny(family, initializer_range=0.1).to(dtype)
    second = Trainer(resumed, settings, pad_token_id=0)
    second.step(draw_samples(seed=9, count=5))  # state that must be replaced
    second.load_state(first.state())
    assert second.policy_version == first.policy_version == 2
    for trainer in (first, second):
        trainer.step(draw_samples(seed=2, count=5))
    torch.testing.assert_close(weights(resumed), weights(original), rtol=0, atol=0)


def test_tied_weights_are_stored_once_and_stay_tied(tiny: Tiny) -> None:
    model = tiny("llama-tied")
    trainer = Trainer(model, TrainSettings(lr=1e-2), pad_token_id=0)
    state = trainer.state()
    assert "model.embed_tokens.weight" in state.model
    assert "lm_head.weight" not in state.model
    trainer.load_state(state)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_fresh_trainers_state_loads(tiny: Tiny) -> None:
    trained, fresh = tiny("llama"), tiny("llama")
    trainer = Trainer(trained, TrainSettings(lr=1e-2), pad_token_id=0)
    trainer.step([Sample((3,), (4,), 1.0, external=False)])
    trainer.load_state(Trainer(fresh, TrainSettings(lr=1e-2), pad_token_id=0).state())
    assert trainer.state().optimizer == {}
    torch.testing.assert_close(weights(trained), weights(fresh), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("family", "settings", "dtype", "message"),
    [
        ("qwen2", {}, torch.float32, r"k_proj.bias is torch.float32 \(16,\) there and absent here"),
        ("llama", {"intermediate_size": 64}, torch.float32, r"\(32, 64\) there and .* \(32, 48\)"),
        ("llama", {}, torch.bfloat16, "bfloat16 .* there and torch.float32 .* here"),
    ],
)
def test_state_of_another_model_is_refused_and_changes_nothing(
    tiny: Tiny, family: str, settings: dict[str, int], dtype: torch.dtype, message: str
) -> None:
    other = Trainer(tiny(family, **settings).to(dtype), TrainSettings(), pad_token_id=0)
    model = tiny("llama", initializer_range=0.1)
    before = weights(model)
    with pytest.raises(SwarmNodeError, match=message):
        Trainer(model, TrainSettings(), pad_token_id=0).load_state(other.state())
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)


def test_optimiser_state_of_another_model_is_refused_and_changes_nothing(tiny: Tiny) -> None:
    trained, model = tiny("llama"), tiny("llama", initializer_range=0.1)
    trainer = Trainer(trained, TrainSettings(), pad_token_id=0)
    trainer.step([Sample((3,), (4,), 1.0, external=False)])
    state = trainer.state()
    moments = dict(state.optimizer)
    del moments["exp_avg.lm_head.weight"]
    before = weights(model)
    with pytest.raises(SwarmNodeError, match=r"'exp_avg.lm_head.weight' does not match"):
        Trainer(model, TrainSettings(), pad_token_id=0).load_state(
            dataclasses.replace(state, optimizer=moments)
        )
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)


def test_effective_ratio_is_one_for_equal_weights_and_falls_with_their_spread(tiny: Tiny) -> None:
    """(Σw)² / (n Σw²) by hand, w the ratio of geometric means per token."""
    model = tiny("llama")
    logps = [float(probabilities(model, (3, 4))[token].log()) for token in (10, 11)]
    samples = [
        Sample((3, 4), (token,), 1.0, external=True, sampler_mean_logp=logp)
        for token, logp in zip((10, 11), logps, strict=True)
    ]
    assert train(tiny("llama"), samples).effective_ratio == pytest.approx(1.0)
    # Weights 1 and 1/4: (5/4)² / (2 × 17/16) = 25/34.
    spread = [
        samples[0],
        dataclasses.replace(samples[1], sampler_mean_logp=logps[1] + math.log(4)),
    ]
    assert train(tiny("llama"), spread).effective_ratio == pytest.approx(25 / 34, rel=1e-4)
    own = [dataclasses.replace(s, external=False, sampler_mean_logp=None) for s in samples]
    assert train(tiny("llama"), own).effective_ratio is None


def test_a_smaller_foreign_share_is_a_smaller_weight(tiny: Tiny) -> None:
    samples = [
        Sample((3,), (4,), 1.0, external=False),
        Sample((3,), (5,), 1.0, external=True),
    ]

    def loss(share: float) -> float | None:
        return Trainer(tiny("llama"), TrainSettings(), pad_token_id=0).step(samples, share).loss

    # Ratios are 1: (−1 − share) / 2.
    assert loss(1.0) == pytest.approx(-1.0)
    assert loss(0.5) == pytest.approx(-0.75)


def test_the_hybrid_rule_shapes_peers_part_only(tiny: Tiny) -> None:
    samples = [
        Sample((3,), (4,), 1.0, external=False),
        Sample((3,), (5,), 1.0, external=True),
    ]
    foreign = HybridSettings(weight=0.0)
    alone, both = tiny("llama"), tiny("llama")
    Trainer(alone, TrainSettings(lr=1e-3), pad_token_id=0).step(samples[:1])
    Trainer(both, TrainSettings(lr=1e-3), pad_token_id=0, foreign=foreign).step(samples)
    # With weight 0 only the divisor differs, which AdamW's first step does not see.
    torch.testing.assert_close(weights(both), weights(alone), rtol=1e-5, atol=1e-6)
