import doctest
from datetime import date, timedelta
from fractions import Fraction

import pytest
import reasoning_gym

from swarmnode.errors import ConfigError
from swarmnode.tasks import gym, soundness
from swarmnode.tasks.soundness import evaluate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", Fraction(7)),
        ("( 1 + 2 ) * 3", Fraction(9)),
        ("7 / 2", Fraction(7, 2)),
        ("-7 / 2", Fraction(-7, 2)),
        ("8 / 2 / 2", Fraction(2)),
        ("10 - 3 - 2", Fraction(5)),
        ("-( 3 - -5 )", Fraction(-8)),
        ("0.125*8", Fraction(1)),
    ],
)
def test_evaluates_exactly_with_the_usual_precedence(expression: str, value: Fraction) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "text", ["", "1 +", "(1", "1)", "1 2", "2 ** 3", "a", "1e5", "().x", "1" * 1001]
)
def test_refuses_what_is_not_arithmetic(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        evaluate(text)


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(soundness).failed == 0


def is_exactly(expression: str, answer: str) -> bool:
    try:
        return evaluate(expression) == int(answer)
    except ZeroDivisionError:
        return False


def test_basic_arithmetic_lists_wrong_answers_that_are_not_kept() -> None:
    options = {"allow_parentheses": False, "max_terms": 3, "max_digits": 1}
    library = reasoning_gym.create_dataset("basic_arithmetic", seed=0, size=300, **options)
    listed = [library[index] for index in range(300)]
    wrong = [
        seed
        for seed, item in enumerate(listed)
        if not is_exactly(item["metadata"]["expression"], item["answer"])
    ]
    assert len(wrong) > 30  # the defence is needed
    source = gym.open_gym("t", "basic_arithmetic", options)
    for seed in wrong:
        draft = source.draft(seed)
        assert is_exactly(draft.prompt.removeprefix("Calculate ").removesuffix("."), draft.answer)


def test_decimal_answers_are_exact_to_a_hundredth_of_the_tolerance() -> None:
    source = gym.open_gym("t", "decimal_arithmetic", {})
    for seed in range(200):
        draft = source.draft(seed)
        exact = evaluate(draft.prompt.splitlines()[-1].removesuffix(" = ?"))
        # 3 decimal places: the tolerance is 0.001.
        assert abs(exact - Fraction(draft.answer)) <= Fraction(1, 100_000)
        assert abs(exact) > Fraction(1, 100)


def test_business_days_stay_in_the_printed_year() -> None:
    options = {"tasks": ["count_business_days"]}
    library = reasoning_gym.create_dataset("calendar_arithmetic", seed=0, size=300, **options)
    misprinted = [i for i in range(300) if library[i]["metadata"]["end_date"].startswith("2023")]
    assert misprinted  # the defence is needed
    source = gym.open_gym("t", "calendar_arithmetic", options)
    for seed in range(300):
        candidate = source.candidate(seed)
        assert (candidate is None) == (seed in misprinted)
        if candidate is not None:
            first = date.fromisoformat(candidate.metadata["start_date"])
            last = date.fromisoformat(candidate.metadata["end_date"])
            days = (first + timedelta(days=n) for n in range((last - first).days + 1))
            assert sum(day.weekday() < 5 for day in days) == int(candidate.answer)


def test_fractions_are_reduced_and_not_one() -> None:
    # Of two numbers from 2 to 3, half the draws are equal; after ten of those the generator gives
    # up reducing and lists 2/2 or 3/3: about one question in 2,000.
    source = gym.open_gym(
        "t", "fraction_simplification", {"min_value": 2, "max_value": 3, "styles": ["plain"]}
    )
    unsound = [seed for seed in range(6000) if source.candidate(seed) is None]
    assert unsound  # the defence is needed
    assert {source.draft(seed).answer for seed in unsound} == {"2/3"}


def test_base_conversion_never_asks_for_zero() -> None:
    options = {"min_value": 0, "max_value": 1, "min_base": 3, "max_base": 10}
    library = reasoning_gym.create_dataset("base_conversion", seed=0, size=50, **options)
    assert {library[index]["answer"] for index in range(50)} == {"", "1"}  # the defence is needed
    source = gym.open_gym("t", "base_conversion", options)
    assert {source.draft(seed).answer for seed in range(50)} == {"1"}


def test_gcd_has_no_answer_that_is_nearly_always_right() -> None:
    library = reasoning_gym.create_dataset("gcd", seed=0, size=1000)
    raw = [library[index]["answer"] for index in range(1000)]
    assert raw.count("1") + raw.count("2") > 450  # the defence is needed
    source = gym.open_gym("t", "gcd", {})
    answers = [source.draft(seed).answer for seed in range(1000)]
    # Even over 2 to 6, each about 0.1: frequency ∝ 1/g² × g²/36; larger ones, ∝ 1/g², are half of
    # all. 1 is rarer, since the generator draws up to three times to avoid it.
    assert max(answers.count(answer) for answer in set(answers)) < 150
    assert answers.count("1") > 5


def test_gcd_that_cannot_be_balanced_still_has_questions() -> None:
    source = gym.open_gym("t", "gcd", {"max_value": 2})
    assert {source.draft(seed).answer for seed in range(50)} <= {"1", "2"}


def test_a_configuration_with_too_few_sound_questions_is_refused() -> None:
    with pytest.raises(ConfigError, match="have a right answer"):
        gym.open_gym(
            "t",
            "basic_arithmetic",
            {
                "allow_parentheses": False,
                "operators": ["/"],
                "min_terms": 4,
                "max_terms": 4,
                "max_digits": 1,
            },
        )
