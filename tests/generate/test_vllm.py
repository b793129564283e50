"""The generator that drives an engine: what is asked, when weights move, what a failure costs."""

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from engine_contract import check_engine
from fake_engine import EOS, FakeEngine, weights_of

from swarmnode.errors import ConfigError
from swarmnode.generate.generator import EngineReport
from swarmnode.generate.vllm import VLLMGenerator
from swarmnode.rollout import Completion, Question


@dataclass
class LetterPrompts:
    """Stands for a `PromptEncoder`: "a" is token 1, "b" token 2 …, and back."""

    codec = SimpleNamespace(decode=lambda ids: "".join(chr(ord("a") + id - 1) for id in ids))

    def encode(self, prompt: str) -> list[int]:
        return [ord(letter) - ord("a") + 1 for letter in prompt]


@dataclass
class Fallback:
    """Stands for transformers' generator."""

    version = 0
    asked: list[int] = field(default_factory=list)

    def generate(self, questions, completions):
        self.asked.append(completions)
        answer = Completion("hf", -0.5, 1, (1,), (-0.5,), False)
        return [[answer] * completions for _ in questions]

    def greedy(self, questions):
        return [group[0] for group in self.generate(questions, 1)]

    def update(self, policy_version):
        pass

    def close(self):
        pass


@dataclass
class Rig:
    """A generator, its engine, and the policy that a test trains by setting `value`."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    value: float = 1.0
    pauses: list[float] = field(default_factory=list)
    fallback: Fallback = field(default_factory=Fallback)

    def generator(self, **changes) -> VLLMGenerator:
        settings = {"context": 512, "max_new_tokens": 10, "temperature": 0.8, "seed": 3} | changes
        return VLLMGenerator(
            self.engine,
            lambda: weights_of(self.value),
            LetterPrompts(),
            [EOS],
            self.fallback,
            pause=self.pauses.append,
            **settings,
        )


QUESTIONS = [Question("letters", b"\0\0\0\0", 0, prompt, "", False) for prompt in ("abc", "de")]


def ids(groups) -> list[list[tuple[int, ...]]]:
    return [[one.token_ids for one in group] for group in groups]


def test_the_fake_engine_keeps_the_contract():
    check_engine(FakeEngine(), lambda k: weights_of(float(k + 1)))


def test_answers_come_in_the_order_of_the_questions_with_what_was_sampled():
    rig = Rig()
    groups = rig.generator().generate(QUESTIONS, 3)
    assert [len(group) for group in groups] == [3, 3]
    for group in groups:
        assert len({one.token_ids for one in group}) == 3
        for one in group:
            assert one.ended == (one.token_ids[-1] == EOS)
            assert len(one.text) == one.token_count - one.ended
            assert one.mean_logp == -0.5
    # Alone each question gets what it got together: the seeds are those of its completions.
    assert ids(Rig().generator().generate(QUESTIONS[:1], 3)) == ids(groups)[:1]


def test_weights_are_handed_over_once_per_version_and_before_the_question():
    rig = Rig()
    generator = rig.generator()
    generator.generate(QUESTIONS, 1)
    generator.greedy(QUESTIONS)
    assert rig.engine.calls == ["start", "load", "send", "receive", "send", "receive"]
    rig.value = 2.0
    generator.update(5)
    assert generator.version == 0  # what was answered is of the old weights
    before = ids(Rig().generator().generate(QUESTIONS, 1))
    after = ids(Rig(value=2.0).generator().generate(QUESTIONS, 1))
    generator.restore(Rig().generator().state())
    assert before != after == ids(generator.generate(QUESTIONS, 1))
    assert rig.engine.versions == [0, 5]
    assert generator.version == 5
    assert generator.report().handover_s is not None


def test_without_a_hand_over_the_engine_answers_with_stale_weights():
    # The version is what tells: a trainer that did not count would not be noticed.
    rig = Rig()
    generator = rig.generator()
    first = generator.greedy(QUESTIONS)
    rig.value = 2.0
    assert ids([generator.greedy(QUESTIONS)]) == ids([first])


def test_the_trainer_may_change_its_weights_while_the_engine_answers():
    rig = Rig()
    generator = rig.generator()
    alone = ids(Rig().generator().generate(QUESTIONS, 2))
    generator.begin(QUESTIONS, 2)
    rig.value = 2.0
    generator.update(1)
    assert ids(generator.finish()) == alone
    assert generator.version == 0
    generator.generate(QUESTIONS, 2)
    assert generator.version == 1


def test_an_evaluation_may_come_between():
    rig = Rig()
    generator = rig.generator()
    alone = ids(Rig().generator().generate(QUESTIONS, 2))
    generator.begin(QUESTIONS, 2)
    rig.value = 2.0
    generator.update(1)
    between = generator.greedy(QUESTIONS)
    assert ids([between]) == ids([Rig(value=2.0).generator().greedy(QUESTIONS)])
    assert ids(generator.finish()) == alone
    assert generator.version == 0


def test_nothing_can_be_collected_that_was_not_begun():
    with pytest.raises(ValueError, match="nothing was begun"):
        Rig().generator().finish()


@pytest.mark.parametrize("call", ["start", "load", "send", "receive"])
def test_an_engine_that_dies_is_restarted_and_asked_the_same_again(call, caplog):
    rig = Rig(FakeEngine(failing=[call]))
    generator = rig.generator()
    with caplog.at_level(logging.WARNING):
        groups = generator.generate(QUESTIONS, 3)
    assert ids(groups) == ids(Rig().generator().generate(QUESTIONS, 3))
    assert rig.pauses == [1.0]
    assert generator.report().restarts == 1
    assert "the engine died" in caplog.text
    assert rig.fallback.asked == []


def test_a_death_after_the_trainers_step_is_answered_by_the_new_weights():
    rig = Rig(FakeEngine(failing=["receive"]))
    generator = rig.generator()
    generator.begin(QUESTIONS, 2)
    rig.value = 2.0
    generator.update(1)
    assert ids(generator.finish()) == ids(Rig(value=2.0).generator().generate(QUESTIONS, 2))
    assert generator.version == 1


def test_pauses_double_and_an_answer_ends_the_count():
    rig = Rig(FakeEngine(failing=["start", "load", "receive"]))
    generator = rig.generator()
    generator.generate(QUESTIONS, 1)
    assert rig.pauses == [1.0, 2.0, 4.0]
    rig.engine.failing = ["receive"]
    generator.generate(QUESTIONS, 1)
    assert rig.pauses == [1.0, 2.0, 4.0, 1.0]
    assert generator.report() == EngineReport("vllm", False, 4, generator.report().handover_s)


def test_after_too_many_failures_transformers_takes_over_for_good(caplog):
    rig = Rig(FakeEngine(failing=["start"] * 4))
    generator = rig.generator()
    generator.update(6)
    with caplog.at_level(logging.WARNING):
        groups = generator.generate(QUESTIONS, 2)
    assert [[one.text for one in group] for group in groups] == [["hf", "hf"], ["hf", "hf"]]
    assert generator.version == 6
    assert "engine given up after 4 failures" in caplog.text
    assert rig.pauses == [1.0, 2.0, 4.0]
    generator.begin(QUESTIONS, 1)
    assert generator.finish()[0][0].text == "hf"
    assert generator.greedy(QUESTIONS)[0].text == "hf"
    generator.rest()
    assert rig.engine.calls == ["start"] * 4  # it is left alone
    assert (generator.report().name, generator.report().is_given_up) == ("hf", True)


def test_no_failure_is_forgiven_when_told_so():
    rig = Rig(FakeEngine(failing=["receive"]))
    generator = rig.generator(max_failures=0)
    assert generator.generate(QUESTIONS, 1)[0][0].text == "hf"
    assert rig.pauses == []


def test_on_a_shared_device_the_engine_sleeps_for_the_trainer_and_gets_its_weights_again():
    rig = Rig()
    generator = rig.generator(shares_device=True)
    generator.rest()  # nothing runs yet
    first = generator.greedy(QUESTIONS)
    generator.rest()
    generator.rest()
    assert ids([generator.greedy(QUESTIONS)]) == ids([first])  # no step was taken
    assert rig.engine.calls == [
        "start", "load", "send", "receive", "sleep", "wake", "load", "send", "receive",
    ]  # fmt: skip


def test_elsewhere_it_stays_awake_and_never_sleeps_while_it_answers():
    rig = Rig()
    generator = rig.generator()
    generator.generate(QUESTIONS, 1)
    generator.rest()
    shared = Rig()
    sharing = shared.generator(shares_device=True)
    sharing.begin(QUESTIONS, 1)
    sharing.rest()
    sharing.finish()
    assert "sleep" not in rig.engine.calls + shared.engine.calls


def test_a_restart_while_asleep_wakes_nobody():
    rig = Rig(FakeEngine(failing=["sleep"]))
    generator = rig.generator(shares_device=True)
    generator.generate(QUESTIONS, 1)
    generator.rest()
    generator.generate(QUESTIONS, 1)
    assert rig.engine.calls[-4:] == ["start", "load", "send", "receive"]


def test_chance_goes_on_where_a_checkpoint_was_taken():
    generator = Rig().generator()
    generator.generate(QUESTIONS, 2)
    state = generator.state()
    expected = ids(generator.generate(QUESTIONS, 2))
    generator.greedy(QUESTIONS)
    resumed = Rig().generator()
    resumed.restore(state)
    assert ids(resumed.generate(QUESTIONS, 2)) == expected
    fresh = ids(Rig().generator().generate(QUESTIONS, 2))
    assert fresh != expected
    resumed = Rig().generator()
    resumed.restore(b"\1" * 5056)  # of transformers' engine
    assert ids(resumed.generate(QUESTIONS, 2)) == fresh
    assert ids(Rig().generator(seed=4).generate(QUESTIONS, 2)) != fresh


def test_the_engine_has_room_for_the_longest_question_and_no_more_than_the_context():
    rig = Rig()
    generator = rig.generator(context=100_000)
    long = Question("letters", b"\0\0\0\0", 0, "a" * 3000, "", False)
    generator.generate(QUESTIONS, 1)
    generator.generate([long], 1)
    generator.generate(QUESTIONS, 1)
    assert rig.engine.contexts == [1034, 4136]  # 1,024 for the prompt, doubled until it fits
    small = Rig()
    small.generator(context=40).generate(QUESTIONS, 1)
    assert small.engine.contexts == [40]


def test_a_completion_is_cut_at_the_end_of_the_context():
    rig = Rig()
    answers = rig.generator(context=5).generate(QUESTIONS, 8)
    assert max(one.token_count for one in answers[0]) <= 2
    with pytest.raises(ConfigError, match="does not fit into the model's context of 3"):
        rig.generator(context=3).generate(QUESTIONS, 1)


def test_it_ends_what_it_started():
    rig = Rig()
    generator = rig.generator()
    generator.generate(QUESTIONS, 1)
    generator.close()
    generator.close()
    assert not rig.engine.is_running
