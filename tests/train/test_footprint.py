from swarmnode import config
from swarmnode.train.footprint import LIBRARY_BYTES, TILE_BYTES, Shape, advice, estimate

# Qwen2.5-0.5B: 24 layers of 896, 14 heads of 64, 2 of them with keys, MLP of 4,864.
QWEN = {
    "num_hidden_layers": 24, "hidden_size": 896, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864,
}  # fmt: skip
PARAMETERS = 494_000_000


def settings(**sections: dict[str, object]) -> config.Settings:
    return config.load(None, sections)


def shape(weight_bytes: int = 4) -> Shape:
    return Shape.of(QWEN, PARAMETERS, weight_bytes)


def test_float32_needs_16_bytes_per_parameter_beside_activations() -> None:
    found = estimate(settings(), shape())
    assert found.weights + found.training == 16 * PARAMETERS
    # 16,384 padded tokens are 32 rows of 256 + 256; of four prompts for 8 each: 32·256 + 4·256.
    # 24 layers × (12·896 + 8·896 + 6·128 + 4·4864) numbers × 4 bytes for each
    assert found.activations == 24 * (12 * 896 + 8 * 896 + 6 * 128 + 4 * 4864) * 4 * 9_216
    assert found.total == 16 * PARAMETERS + LIBRARY_BYTES + found.activations + TILE_BYTES["cpu"]


def test_bfloat16_has_masters_beside_its_weights() -> None:
    found = estimate(settings(), shape(2))
    # 2 weights, 2 gradient; master, its gradient, two moments: 16
    assert found.weights + found.training == 20 * PARAMETERS


def test_autocast_keeps_copies_of_float32_weights_in_bfloat16() -> None:
    chosen = settings(train={"autocast": "bfloat16"})
    plain = estimate(settings(), shape()).weights
    assert estimate(chosen, shape()).weights == plain + 2 * PARAMETERS
    assert estimate(settings(), shape(), "cuda").weights == plain + 2 * PARAMETERS
    assert estimate(settings(train={"autocast": "off"}), shape(), "cuda").weights == plain
    assert estimate(chosen, shape(2)).weights == 2 * PARAMETERS  # they are bfloat16 already


def test_8_bit_moments_adapters_and_the_kl_term() -> None:
    eight = estimate(settings(train={"optimizer": "adamw8bit"}), shape())
    assert eight.weights + eight.training == 10 * PARAMETERS
    kl = {"kl_weight": 0.1}
    assert estimate(settings(train=kl), shape()).reference == 4 * PARAMETERS
    adapted = estimate(settings(model={"lora_rank": 8}, train=kl), shape())
    assert adapted.reference == 0
    # q, o: 896 + 896; k, v: 896 + 128; three of the MLP: 896 + 4864; rank 8, 24 layers: 4.4 M
    assert shape().adapters(8) == 8 * 24 * (2 * 1792 + 2 * 1024 + 3 * 5760) == 4_399_104
    assert adapted.weights + adapted.training == 4 * PARAMETERS + 16 * 4_399_104


def test_fewer_samples_than_a_micro_batch_holds_need_less() -> None:
    few = {"questions": 1, "completions": 2, "max_new_tokens": 16}
    found = estimate(settings(generate=few, sharing={"rule": "off"}), shape(), prompt_tokens=84)
    whole = estimate(settings(), shape())
    assert found.activations * 9_216 == whole.activations * (2 * 16 + 84)
    assert found.cache == 2 * 24 * 128 * 4 * 200


def test_advice_is_the_first_change_that_fits() -> None:
    whole = estimate(settings(), shape())
    assert advice(settings(), shape(), whole.total - 1) == "try train.micro_batch_tokens = 8192"
    assert "--lora-rank 16" in advice(settings(), shape(), 5 * 10**9)
    assert "smaller model" in advice(settings(), shape(), 10**9)
    adapted = settings(model={"lora_rank": 8})
    assert "bfloat16" in advice(adapted, shape(), 2_300_000_000)


def test_gpt2s_names_are_known() -> None:
    found = Shape.of({"n_layer": 2, "n_embd": 32, "n_head": 4, "n_inner": None}, 1, 4)
    assert (found.layers, found.hidden, found.queries, found.keys) == (2, 32, 32, 32)
    assert found.intermediate == 128
