"""The roomy cache holds what transformers' own would."""

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from swarmnode.generate.cache import RoomyLayer, make_room

B, H, P, D = 2, 3, 5, 4


def states(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = torch.randn(2, rows, H, tokens, D)
    return keys, values


def filled() -> DynamicLayer:
    layer = DynamicLayer()
    torch.manual_seed(0)
    layer.update(*states(B, P))
    return layer


def assert_alike(one: DynamicLayer, other: DynamicLayer) -> None:
    assert torch.equal(one.keys, other.keys)
    assert torch.equal(one.values, other.values)
    assert one.get_seq_length() == other.get_seq_length()
    assert one.get_mask_sizes(1) == other.get_mask_sizes(1)


def test_holds_what_a_growing_layer_holds() -> None:
    copies, keep = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([4, 0])
    roomy, growing = RoomyLayer(filled(), copies, room=3), filled()
    growing.batch_select_indices(copies)
    assert_alike(roomy, growing)
    for tokens in (1, 1):
        new = states(len(copies), tokens)
        for found, wanted in zip(roomy.update(*new), growing.update(*new), strict=True):
            assert torch.equal(found, wanted)
    for layer in (roomy, growing):
        layer.batch_select_indices(keep)
    assert_alike(roomy, growing)
    new = states(len(keep), 1)
    roomy.update(*new)
    growing.update(*new)
    assert_alike(roomy, growing)


def test_a_written_token_does_not_move_the_cache() -> None:
    roomy = RoomyLayer(filled(), torch.tensor([0, 1]), room=2)
    before = roomy.keys.data_ptr()
    roomy.update(*states(2, 1))
    assert roomy.keys.data_ptr() == before


def test_only_plain_layers_are_replaced() -> None:
    cache = DynamicCache()
    sliding = DynamicSlidingWindowLayer(sliding_window=4)
    torch.manual_seed(0)
    sliding.update(*states(B, P))
    cache.layers = [filled(), sliding]
    make_room(cache, torch.tensor([1, 1, 0]), room=2)
    assert isinstance(cache.layers[0], RoomyLayer)
    assert cache.layers[1] is sliding
    assert all(len(layer.keys) == 3 for layer in cache.layers)
