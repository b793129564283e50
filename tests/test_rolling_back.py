"""The probe: what it calls bad, and a real small node that goes back."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fakes import peer_group

from swarmnode import config, manifest
from swarmnode.config import Settings
from swarmnode.identity import Identity
from swarmnode.node import Node
from swarmnode.probing import Look, Memory, Verdict, look_of, verdict
from swarmnode.run_directory import RunDirectory
from swarmnode.swarm.memory import Hub, MemoryTransport

PHRASE = (7, 8, 9)
GOOD = Look((1.0,) * 10 + (0.0,) * 10, 10.0, {(1, 2, 3): 20})


def look(**changes: object) -> Look:
    return dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]  # fields of `Look`


def test_an_equal_look_is_good() -> None:
    assert verdict(GOOD, GOOD, {(1, 2, 3): 99}) is None


def test_accuracy_may_fall_by_chance_only() -> None:
    # Two of twenty fall: mean 0.1, variance 0.09, error sqrt(0.09 / 19) = 0.069, 2.5 of it 0.17.
    assert verdict(GOOD, look(rewards=(1.0,) * 8 + (0.0,) * 12), {}) is None
    # Eight of twenty: mean 0.4, variance 0.24, error 0.112, 2.5 of it 0.28.
    assert verdict(GOOD, look(rewards=(1.0,) * 2 + (0.0,) * 18), {}) == Verdict("accuracy")
    assert verdict(GOOD, look(rewards=(1.0,) * 20), {}) is None


def test_answers_may_grow_by_a_quarter() -> None:
    assert verdict(GOOD, look(tokens=12.5), {}) is None
    assert verdict(GOOD, look(tokens=12.6), {}) == Verdict("length")


def test_a_phrase_must_have_risen_and_come_from_peers() -> None:
    risen = look(counts={PHRASE: 5})  # a quarter of twenty
    assert verdict(GOOD, risen, {PHRASE: 2}) == Verdict("phrase", frozenset({PHRASE}))
    assert verdict(GOOD, risen, {}) is None
    assert verdict(GOOD, look(counts={PHRASE: 4}), {PHRASE: 2}) is None
    assert verdict(look(counts={PHRASE: 3}), risen, {PHRASE: 2}) is None


def test_what_question_and_answer_hold_is_no_phrase() -> None:
    seen = look_of([1.0], [(1, 2, 3, 4)], [[(1, 2, 3)]])
    assert dict(seen.counts) == {(2, 3, 4): 1}


def test_concerned_are_those_whose_texts_show_it() -> None:
    memory = Memory()
    memory.accept(GOOD, 3)
    long, short = tuple(range(100, 120)), PHRASE
    memory.note([(peer_group([1.0], author=1), [long]), (peer_group([1.0], author=2), [short])])
    one, two = bytes([1] * 32), bytes([2] * 32)
    assert memory.concerned(Verdict("phrase", frozenset({PHRASE}))) == {two}
    assert memory.concerned(Verdict("length")) == {one}
    assert memory.concerned(Verdict("accuracy")) == {one, two}
    memory.reject()
    assert memory.concerned(Verdict("accuracy")) == set()


def test_the_last_good_look_survives_a_restart() -> None:
    memory, again = Memory(), Memory()
    again.load_state(memory.state())
    assert again.good is None
    memory.accept(GOOD, 3)
    again.load_state(memory.state())
    assert (again.good, again.good_round) == (GOOD, 3)


def settings(probe_every: int) -> Settings:
    flags = {
        "generate": {"questions": 2, "completions": 4},
        "sharing": {"rule": "hybrid"},
        "defence": {"probe_every": probe_every, "probe_questions": 14},
        "run": {"threads": 1, "checkpoint_every": 1, "evaluate_questions": 2},
        "metrics": {"port": -1},
    }
    return config.load(None, flags, config.preset("demo"))


@contextmanager
def node(folder: Path, hub: Hub, chosen: Settings) -> Iterator[Node]:
    directory = RunDirectory(folder)
    directory.open()

    def transport(identity: Identity, swarm_id: bytes, label: str) -> MemoryTransport:
        return MemoryTransport(hub, identity.peer_id)

    one = Node(chosen, manifest.load("demo"), directory, transport)
    try:
        one.open()
        yield one
    finally:
        one.close()
        directory.close()


def spoil(one: Node) -> None:
    """What a training on lies does to the weights, in short."""
    with torch.no_grad():
        for parameter in one._parts.policy.model.parameters():
            parameter.zero_()


def weights(one: Node) -> dict[str, torch.Tensor]:
    return {n: p.clone() for n, p in one._parts.policy.model.named_parameters()}


def sharpen(one: Node) -> None:
    """The shipped model is right too seldom for a fall to show: its probe is taken for right."""
    memory = one._parts.rollback._memory
    assert memory.good is not None
    memory.good = dataclasses.replace(memory.good, rewards=(1.0,) * len(memory.good.rewards))


@pytest.mark.slow
def test_a_node_goes_back_to_its_last_good_weights(tmp_path: Path) -> None:
    hub = Hub()
    with node(tmp_path / "a", hub, settings(2)) as a, node(tmp_path / "b", hub, settings(0)) as b:
        for _ in range(2):
            a.run_round(), b.run_round()
        good, version = weights(a), a._parts.trainer.policy_version
        sharpen(a)
        a.run_round(), b.run_round()
        spoil(a), spoil(b)
        numbers = a._progress.next_number
        reports = [a.run_round(), b.run_round()]
        # Only the one that has a probe went back.
        assert [sum(report.totals.rollbacks.values()) for report in reports] == [1, 0]
        after = weights(a)
        assert all(torch.equal(after[name], good[name]) for name in good)
        assert any(not torch.equal(p, good[n]) for n, p in weights(b).items())
        # What was published and asked stays so, and peers see that the policy changed.
        assert a._progress.next_number > numbers
        assert a._parts.trainer.policy_version > version
        peers = {b._parts.identity.public_key} if a._progress.totals.trained_from else set()
        assert {k for k in peers if a._parts.mixing.blame.share(k) < 1} == peers


@pytest.mark.slow
def test_a_run_that_resumes_goes_back_too(tmp_path: Path) -> None:
    chosen = settings(1)
    with node(tmp_path / "a", Hub(), chosen) as a:
        a.run_round()
        sharpen(a)
        a._checkpoints._saved_round = -1
        state = a._parts.rollback.state()
    with node(tmp_path / "a", Hub(), chosen) as a:
        assert a._progress.round == 1
        a._parts.rollback.load_state(state)
        good = a._parts.rollback._memory.good_round
        spoil(a)
        a.run_round()
        assert a._progress.totals.rollbacks
        assert good == 1
        assert any(bool(p.any()) for p in a._parts.policy.model.parameters())
