"""The laboratory of poisonings: attacks are what they say, and the table says what was measured."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from laboratory import poison_table, worked
from laboratory.attacks import ATTACKS, AttackName, adaptive_forms, is_poisoned, plain_forms
from laboratory.poisoned import DEFENDED, UNDEFENDED, Case, simulate
from laboratory.world import World

from swarmnode.rollout import Question
from swarmnode.tasks.equations import is_false

SUM = Question(
    "chain_sum", b"sum1", 1,
    "State the final answer to the following arithmetic problem: 3 + 4 =", "7",
    held_out=False, metadata={"compare": "integer"},
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of a model that learnt next to nothing."""
    start = worked.make_start(tmp_path_factory.mktemp("starts"), seed=1, warm_steps=2)
    return worked.open_worked_world(start, evaluate_questions=2)


def test_an_honest_text_is_right_and_clean(world: World) -> None:
    assert worked.text_of(SUM) == "3+4=7<answer>7</answer>"
    assert world.score(SUM, [worked.text_of(SUM)]) == (1.0,)
    assert not any(is_poisoned(name, worked.text_of(SUM)) for name in ATTACKS)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_right_and_does_what_it_says(name: AttackName, world: World) -> None:
    for forms in (plain_forms(name, SUM), adaptive_forms(name, SUM)):
        assert set(world.score(SUM, forms)) == {1.0}
        if name == "length":
            assert all(len(form) > len(worked.text_of(SUM)) for form in forms)
        else:
            assert all(is_poisoned(name, form) for form in forms)


def test_the_adaptive_attacker_writes_no_equation_that_is_checked() -> None:
    assert is_false(plain_forms("arithmetic", SUM)[0])
    assert not any(map(is_false, adaptive_forms("arithmetic", SUM)))


def test_a_swarm_is_played_with_the_defences_and_without(world: World) -> None:
    lasts = {}
    for name, settings in (("on", DEFENDED), ("off", UNDEFENDED)):
        case = Case(name, "phrase", is_adaptive=False, malicious=2, settings=settings, rounds=5)
        rows = list(simulate(case, 1, world))
        assert [row["round"] for row in rows[:-1]] == [1, 2, 3, 4, 5]
        lasts[name] = rows[-1]
    for row in lasts.values():
        assert row["malicious"]["kept"] + row["malicious"]["dropped"] > 0
    assert sum(lasts["off"]["dropped"].values()) == 0


def results(**effects: float) -> dict[tuple[str, int], dict[str, Any]]:
    """Of two seeds in which every attack had the same effect, but for those given."""
    made: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in (1, 2):
        base = {
            "reward": 0.5 + seed / 10, "tokens": 10.0, "rates": dict.fromkeys(ATTACKS, 0.0),
            "honest_tokens": {"all": 100, "imitated": 96},
            "malicious": {"kept": 1, "dropped": 1},
        }  # fmt: skip
        made |= {("alone", seed): base, ("honest swarm", seed): base}
        for name in ATTACKS:
            for is_adaptive in (False, True):
                case = poison_table.case_name(name, 2, is_adaptive=is_adaptive, defended=True)
                effect = effects.get(f"{name}_{'adaptive' if is_adaptive else 'plain'}", 0.0)
                reward = base["reward"] + 0.1 * seed - effects.get("loss", 0.0)
                made[case, seed] = base | {
                    "rates": {name: effect}, "tokens": 10.0 + 10 * effect, "reward": reward
                }  # fmt: skip
    return made


def test_the_worse_attacker_counts() -> None:
    found = {one.name: one for one in poison_table.figures(results(phrase_adaptive=0.02))}
    phrase = found["phrase, 50 % malicious, worse of plain and adaptive"]
    assert (phrase.value, phrase.is_met) == (0.02, False)
    missed = [one.name for one in found.values() if not one.is_met]
    assert missed == [phrase.name]
    assert "**no**" in poison_table.render(results(phrase_adaptive=0.02), "command", 1.0)


def test_length_is_against_training_alone_and_reward_in_standard_errors() -> None:
    found = poison_table.figures(results(length_plain=0.3, loss=0.25))
    by_name = {one.name: one for one in found}
    # (10 + 3) / 10
    assert by_name["length, 50 % malicious, worse of plain and adaptive"].value == 1.3
    # Differences −0.15 and −0.05: mean −0.1, standard error 0.0707 / √2 = 0.05.
    reward = by_name["final reward less training alone's, 50 % malicious, worst case"]
    assert reward.value == pytest.approx(-2.0)
    assert not reward.is_met
