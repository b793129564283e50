import decimal
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import reasoning_gym

from swarmnode.errors import ConfigError
from swarmnode.tasks import answer, compare, gym
from swarmnode.tasks.options import Kind, OneOf, Real, SomeOf, Whole

HERE = Path(__file__).parent
NAMES = sorted(gym.ALLOWED)


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_questions_are_bit_equal_whatever_the_hash_seed(hash_seed: str) -> None:
    root = HERE.parents[1]
    run = subprocess.run(
        [sys.executable, str(HERE / "question_digests.py")],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        text=True,
    )
    pinned = json.loads((HERE / "question_digests.json").read_text())
    # A difference means that nodes of two releases disagree: raise gym.RULES_VERSION, then
    # write the new digests (see question_digests.py).
    assert json.loads(run.stdout) == pinned


@pytest.mark.parametrize("name", NAMES)
def test_question_of_a_seed_is_the_library_s(name: str) -> None:
    source = gym.open_gym(name, name, {})
    options = gym.ALLOWED[name].defaults
    for seed in (0, 1, 7, 12345, 2**31, 2**32 - 1):
        item = reasoning_gym.create_dataset(name, seed=seed, size=1, **options)[0]
        candidate = source.candidate(seed)
        if candidate is not None:
            assert (candidate.prompt, candidate.answer) == (item["question"], item["answer"])
            if gym.ALLOWED[name].balance(candidate):
                assert source.draft(seed).prompt == item["question"]


@pytest.mark.parametrize("name", NAMES)
def test_strict_rule_agrees_with_the_library_on_honest_answers(name: str) -> None:
    library = reasoning_gym.create_dataset(name, seed=0, size=2**32, **gym.ALLOWED[name].defaults)
    source = gym.open_gym(name, name, {})
    drafts = [(seed, source.draft(seed)) for seed in range(60)]
    for seed, draft in drafts:
        entry = library[seed]
        if entry["question"] != draft.prompt:
            continue
        others = [other.answer for _, other in drafts[:20]]
        for given in (draft.answer, *others):
            theirs = library.score_answer(given, entry) >= 0.99
            assert compare.is_right(given, draft.answer, draft.metadata) == theirs, given


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_inside_a_sentence_is_wrong(name: str) -> None:
    source = gym.open_gym(name, name, {})
    for seed in range(20):
        draft = source.draft(seed)
        for text in (
            f"The answer is {draft.answer}",
            f"{draft.answer}!",
            f"{draft.answer} {draft.answer}",
            "",
        ):
            given = answer.extract(text, "whole")
            assert given is not None
            assert not compare.is_right(given, draft.answer, draft.metadata)


@pytest.mark.parametrize("name", NAMES)
def test_metadata_is_what_the_scorer_needs_and_json(name: str) -> None:
    draft = gym.open_gym(name, name, {}).draft(3)
    assert json.loads(json.dumps(dict(draft.metadata))) == draft.metadata
    assert set(draft.metadata) <= {"compare", "tolerance"}
    assert compare.readable(draft.answer, draft.metadata)


def test_what_the_library_rewards_and_we_do_not() -> None:
    """The strict rules are needed: each of these scores more than 0 in the library."""
    fractions = reasoning_gym.create_dataset("fraction_simplification", seed=0, size=1)
    entry = fractions[0]
    top, bottom = (entry["metadata"][f"simplified_{part}"] for part in ("numerator", "denominator"))
    prefix = rf"\frac{{{top}}}{{{bottom}}} or anything"
    assert fractions.score_answer(prefix, entry) == 1.0
    assert not compare.is_right(prefix, entry["answer"], {"compare": "fraction"})

    matrices = reasoning_gym.create_dataset("binary_matrix", seed=0, size=1)
    entry = matrices[0]
    program = (
        "["
        + ",".join(
            "[" + ",".join(f"{cell}+1-1" for cell in row) + "]"
            for row in entry["metadata"]["solution"]
        )
        + "]"
    )
    assert matrices.score_answer(program, entry) == 0.1  # it evaluates the answer
    assert not compare.is_right(program, entry["answer"], {"compare": "grid"})

    sums = reasoning_gym.create_dataset("chain_sum", seed=0, size=1)
    entry = sums[0]
    assert sums.score_answer(f"It is {entry['answer']}", entry) > 0
    assert not compare.is_right(f"It is {entry['answer']}", entry["answer"], {"compare": "integer"})


def test_generation_leaves_the_decimal_context_alone_and_ignores_it() -> None:
    source = gym.open_gym("t", "decimal_arithmetic", {"precision": 20})
    before = source.draft(5)
    with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_DOWN)) as context:
        assert source.draft(5) == before
        assert (context.prec, context.rounding) == (3, decimal.ROUND_DOWN)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("number_sorting", {}, "is not allowed"),
        ("propositional_logic", {}, "is not allowed"),
        ("no_such", {}, "is not allowed"),
        ("chain_sum", {"seed": 1}, "no option 'seed'"),
        ("chain_sum", {"size": 1}, "no option 'size'"),
        ("spell_backward", {"data_file": "/etc/passwd"}, "no option 'data_file'"),
        ("basic_arithmetic", {"operators": ["+", "**"]}, "operators"),
        ("basic_arithmetic", {"operators": []}, "operators"),
        ("basic_arithmetic", {"operators": "+"}, "operators"),
        ("basic_arithmetic", {"max_terms": 6}, "at most 12"),
        (
            "basic_arithmetic",
            {"max_terms": 2, "max_digits": 9, "allow_parentheses": False},
            "max_digits must be at most 4",
        ),
        ("chain_sum", {"max_terms": 10**9}, "from 1 to 12"),
        ("chain_sum", {"max_terms": 2.0}, "from 1 to 12"),
        ("chain_sum", {"max_terms": True}, "from 1 to 12"),
        ("chain_sum", {"min_terms": 9, "max_terms": 3}, "min_terms"),
        ("chain_sum", {"allow_negation": 1}, "true or false"),
        ("binary_matrix", {"p_zero": 0.0}, "p_zero"),
        ("arc_1d", {"max_size": 41}, "from 10 to 40"),
        ("base_conversion", {"min_base": 7, "max_base": 7}, "min_base must be below"),
        ("calendar_arithmetic", {"offset_upper_bound": 0}, "offset_upper_bound"),
        ("calendar_arithmetic", {"tasks": ["is_leap_year", "is_leap_year"]}, "tasks"),
        ("decimal_arithmetic", {"min_num_decimal_places": 5}, "min_num_decimal_places is 5"),
        ("decimal_arithmetic", {"precision": 7}, "precision must be at least 9"),
        ("spell_backward", {"min_word_len": 1, "max_word_len": 2}, "right answer"),
    ],
)
def test_refuses(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gym.open_gym("t", name, options)


def some_value(kind: Kind, rng: random.Random) -> Any:
    if isinstance(kind, Whole):
        return rng.choice([kind.low, kind.high, rng.randint(kind.low, kind.high)])
    if isinstance(kind, Real):
        return rng.choice([kind.low, kind.high, rng.uniform(kind.low, kind.high)])
    if isinstance(kind, SomeOf):
        return rng.sample(kind.allowed, rng.randint(1, len(kind.allowed)))
    return rng.choice(kind.allowed) if isinstance(kind, OneOf) else rng.random() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_any_allowed_options_make_questions_or_are_refused(name: str) -> None:
    """No combination hangs or raises; arc_1d's sizes above 40, which are shut out, did hang."""
    rng = random.Random(7)
    made = 0
    for _ in range(40):
        kinds = gym.ALLOWED[name].options
        options = {k: some_value(kind, rng) for k, kind in kinds.items() if rng.random() < 0.6}
        try:
            source = gym.open_gym("t", name, options)
        except ConfigError:
            continue
        for _ in range(10):
            draft = source.draft(rng.randrange(2**32))
            assert compare.readable(draft.answer, draft.metadata)
            made += 1
    assert made > 0
