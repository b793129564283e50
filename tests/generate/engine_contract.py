"""What every engine promises, fake and real. `weights(k)` are the k-th weights of one model."""

from collections.abc import Callable, Iterable, Sequence

import pytest
from torch import Tensor

from swarmnode.generate.engine import Batch, Engine, EngineFailed, Request, Sampled

Weights = Callable[[int], Iterable[tuple[str, Tensor]]]
CONTEXT = 64


def asked(engine: Engine, seeds: Sequence[int], temperature: float | None = 1.0) -> list[Sampled]:
    requests = tuple(Request((1, 2, 3), seed, 12) for seed in seeds)
    engine.send(Batch(requests, temperature))
    return list(engine.receive())


def check_engine(engine: Engine, weights: Weights) -> None:
    with pytest.raises(EngineFailed, match="not running"):
        asked(engine, [1])
    engine.start(CONTEXT)
    assert engine.runs
    engine.load(weights(0), 0)
    first = asked(engine, range(8))
    assert len({tuple(one.ids) for one in first}) > 1, "chance comes from the seed"
    for one in first:
        assert 1 <= len(one.ids) == len(one.logps) <= 12
        assert all(logp <= 0 for logp in one.logps)
    assert [one.ids for one in asked(engine, range(8))] == [one.ids for one in first]
    greedy = asked(engine, [1, 2], None)
    assert greedy[0].ids == greedy[1].ids, "greedy answers know no seed"

    engine.load(weights(1), 1)
    second = asked(engine, range(8))
    assert [one.ids for one in second] != [one.ids for one in first]
    engine.kill()
    assert not engine.runs
    engine.kill()
    engine.start(CONTEXT)
    engine.load(weights(0), 2)
    assert [one.ids for one in asked(engine, range(8))] == [one.ids for one in first]
