"""The allow-list of reasoning-gym data sets: how each is configured, kept and compared.

The library makes questions and never scores them. `REVIEWED` is the version whose generators
were read for this list; a data set is on it if its generator draws from `random.Random(seed)`
alone (no numpy, global generator or order of a set: a test compares two hash seeds), is quick and
quiet, and lists right answers or tells which are wrong (`soundness.py`).

Not on the list, of the nine tasks of the SAPO paper (arXiv 2509.08721):
- propositional_logic: its answers are not sound. Of 2,000 questions at the defaults 0.7 % list a
  conclusion that does not follow, 23 % have contradictory premises, so that everything follows,
  and in 90 % the library's score of a premise copied from the question is 1.
- bf: prints to standard output for every question and needs up to 0.1 s, for printing a word.

The question of a seed is `create_dataset(name, seed=seed, size=1, **options)[0]`, if it is kept;
else that of the next seed in `_attempts`. Item `seed` of a data set of seed 0 is the same question
(every generator on the list draws from `Random(self.seed + index)`; a test compares the two),
and saves making the data set anew: spell_backward reads its words in 38 ms.
"""

import decimal
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata as packages
from typing import Any, Final

import reasoning_gym

from swarmnode.errors import ConfigError
from swarmnode.tasks import options as kinds
from swarmnode.tasks import soundness
from swarmnode.tasks.options import Flag, OneOf, Real, SomeOf, Whole
from swarmnode.tasks.soundness import Candidate
from swarmnode.tasks.source import Draft

REVIEWED: Final = "0.1.25"
# Raised when the same seed gives another question or another answer than before, by a change of
# this module, of `soundness.py` or of `compare.py`: nodes of the two would not agree.
RULES_VERSION: Final = 1
# Questions tried for one seed. `open` refuses configurations that keep less than a fifth of
# theirs, so a seed without a question has a probability below 0.8**200 = 4e-20.
MAX_ATTEMPTS: Final = 200
# Seeds that `open` tries, and how many must be kept at once. At a true rate of 5 % or less the
# configuration passes with a probability below 1e-9.
SAMPLED: Final = 200
MIN_KEPT: Final = 40

_MAX_SEED = 2**32
_CALENDAR = (
    "weekday_offset",
    "weekday_of_date",
    "weekday_of_date_from_first_date",
    "recurring_event_day",
    "count_days",
    "count_business_days",
    "is_leap_year",
)
_STYLES = ("plain", "latex_inline", "latex_frac", "latex_dfrac")
_TERMS = {"min_terms": Whole(1, 12), "max_terms": Whole(1, 12)}
_DIGITS = {"min_digits": Whole(1, 10), "max_digits": Whole(1, 10)}
_NUMBERS = {"min_numbers": Whole(2, 8), "max_numbers": Whole(2, 8)}
_VALUES = {"min_value": Whole(1, 10**6), "max_value": Whole(2, 10**6)}


def _nothing(candidate: Candidate) -> dict[str, Any]:
    return {}


def _calendar_comparison(candidate: Candidate) -> dict[str, Any]:
    task = candidate.metadata["task"]
    if task == "is_leap_year":
        return {"compare": "word"}
    return {"compare": "text" if task.startswith("weekday") else "integer"}


def _decimal_tolerance(candidate: Candidate) -> dict[str, Any]:
    return {"tolerance": str(soundness.decimal_tolerance(candidate.config))}


def _no_objection(config: Any) -> str:
    return ""


def _divisor_search(config: Any) -> str:
    """The generator finds a dividend's divisors by trial, in the node's own process: with
    parentheses up to its square root (10^12 costs 0.07 s, the library's default of 6 terms of 4
    digits can need hours), without them up to 10^max_digits for every division."""
    if "/" not in config.operators:
        return ""
    digits = config.max_digits * (config.max_terms - 1)
    if digits > 12:
        return f"max_digits × (max_terms − 1) is {digits}; with operator / it must be at most 12"
    if not config.allow_parentheses and config.max_digits > 4:
        return "with operator / and without parentheses max_digits must be at most 4"
    return ""


def _two_bases(config: Any) -> str:
    """With one base the generator looks for another one for ever."""
    return "" if config.min_base < config.max_base else "min_base must be below max_base"


def _some_precision(config: Any) -> str:
    """Intermediate results are rounded to `precision` digits; terms up to 10 need six more."""
    need = config.max_num_decimal_places + 6
    return "" if config.precision >= need else f"precision must be at least {need}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set. `options` are those a manifest may set, `defaults` replace the library's,
    `keep` are sound questions, `balance` those kept of them while there are attempts, `compare`
    is the rule in `compare.RULES`, `detail` is added to the question's metadata, `objection` says
    what is wrong with a configuration as a whole, or nothing."""

    compare: str
    options: Mapping[str, kinds.Kind]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keep: soundness.Keep = soundness.always
    balance: soundness.Keep = soundness.always
    detail: Callable[[Candidate], dict[str, Any]] = _nothing
    objection: Callable[[Any], str] = _no_objection


ALLOWED: Final[Mapping[str, Entry]] = {
    "arc_1d": Entry(
        compare="grid",
        # Blocks of 2 with a palette of one cell each: n of them need 4 n < size. From 41 there can
        # be ten, and the generator looks for a tenth colour of nine for ever.
        options={"min_size": Whole(10, 40), "max_size": Whole(10, 40), "num_train": Whole(1, 6)},
    ),
    "base_conversion": Entry(
        compare="text",
        options={
            "min_base": Whole(2, 36),
            "max_base": Whole(2, 36),
            "min_value": Whole(0, 10**9),
            "max_value": Whole(1, 10**9),
        },
        keep=soundness.positive,
        objection=_two_bases,
    ),
    "basic_arithmetic": Entry(
        compare="integer",
        options={
            **_TERMS,
            **_DIGITS,
            "operators": SomeOf(("+", "-", "*", "/")),
            "allow_parentheses": Flag(),
            "allow_negation": Flag(),
            "format_style": OneOf(("simple", "natural")),
            "whitespace": OneOf(("no_space", "single", "random")),
        },
        defaults={"max_terms": 4},
        keep=soundness.exact_integer,
        objection=_divisor_search,
    ),
    "binary_matrix": Entry(
        compare="grid",
        options={"min_n": Whole(2, 12), "max_n": Whole(2, 12), "p_zero": Real(0.05, 0.95)},
    ),
    "calendar_arithmetic": Entry(
        compare="text",
        options={
            "year": Whole(1000, 9000),  # all years have four digits, dates of next year exist
            "tasks": SomeOf(_CALENDAR),
            "offset_upper_bound": Whole(1, 1000),  # at 0 the generator looks for ever
            "leap_year_range": Whole(2, 1000),
        },
        keep=soundness.dated,
        detail=_calendar_comparison,
    ),
    "chain_sum": Entry(compare="integer", options={**_TERMS, **_DIGITS, "allow_negation": Flag()}),
    "decimal_arithmetic": Entry(
        compare="decimal",
        options={
            "min_num_decimal_places": Whole(1, 8),
            "max_num_decimal_places": Whole(1, 8),
            "min_terms": Whole(1, 8),
            "max_terms": Whole(1, 8),
            "precision": Whole(7, 28),
        },
        keep=soundness.stable_decimal,
        detail=_decimal_tolerance,
        objection=_some_precision,
    ),
    "fraction_simplification": Entry(
        compare="fraction",
        options={
            **_VALUES,
            "min_factor": Whole(1, 10**4),
            "max_factor": Whole(1, 10**4),
            "styles": SomeOf(_STYLES),
        },
        keep=soundness.reduced,
    ),
    "gcd": Entry(
        compare="integer", options={**_NUMBERS, **_VALUES}, balance=soundness.balanced_gcd
    ),
    "lcm": Entry(compare="integer", options={**_NUMBERS, **_VALUES}),
    "products": Entry(compare="integer", options={**_TERMS, **_DIGITS, "allow_negation": Flag()}),
    "spell_backward": Entry(
        compare="word", options={"min_word_len": Whole(1, 10), "max_word_len": Whole(1, 10)}
    ),
}


class GymSource:
    """The questions of one allowed data set in one configuration. Made by `open_gym`."""

    def __init__(self, name: str, entry: Entry, dataset: Any) -> None:
        self._name = name
        self._entry = entry
        self._dataset = dataset

    @property
    def collection(self) -> str:
        return self._name

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"reasoning_gym": REVIEWED, "data set": self._name, "rules": RULES_VERSION}

    def draft(self, seed: int) -> Draft:
        """Raises `ValueError` for a seed without a question, which `open_gym` makes improbable."""
        sound: Draft | None = None
        for number in _attempts(seed):
            candidate = self.candidate(number)
            if candidate is None:
                continue
            if self._entry.balance(candidate):
                return self._draft(candidate)
            sound = sound or self._draft(candidate)
        if sound is None:
            raise ValueError(f"{self._name} has no sound question for seed {seed}")
        return sound

    def evaluation_seeds(self) -> Iterator[int]:
        number = 0
        while True:
            yield _hashed_seed(b"swarmnode/held-out\0", number)
            number += 1

    def candidate(self, number: int) -> Candidate | None:
        """What the generator makes of exactly this seed; None if it fails or is unsound."""
        try:
            # The generator sets the precision of the thread's context and divides by it.
            with decimal.localcontext(decimal.Context(prec=28, rounding=decimal.ROUND_HALF_EVEN)):
                item = self._dataset[number]
            candidate = Candidate(
                item["question"], item["answer"], item["metadata"], self._dataset.config
            )
            return candidate if self._entry.keep(candidate) else None
        except (ArithmeticError, ValueError, IndexError):
            return None  # such as a division by zero or an empty range

    def _draft(self, candidate: Candidate) -> Draft:
        metadata = {"compare": self._entry.compare} | self._entry.detail(candidate)
        return Draft(candidate.prompt, candidate.answer, metadata)


def open_gym(task: str, name: str, options: Mapping[str, Any]) -> GymSource:
    """The source for data set `name`. Raises `ConfigError` for one that is not on the list, for
    options it does not take, and for a configuration that yields too few sound questions."""
    installed = packages.version("reasoning-gym")
    if installed != REVIEWED:
        raise ConfigError(
            f"reasoning-gym {installed} is installed; questions are the same on all nodes only "
            f"with {REVIEWED}: pip install reasoning-gym=={REVIEWED}"
        )
    entry = ALLOWED.get(name)
    if entry is None:
        known = ", ".join(ALLOWED)
        raise ConfigError(f"task {task}: reasoning_gym:{name} is not allowed; allowed are {known}")
    kinds.check(task, options, entry.options)
    try:
        dataset = reasoning_gym.create_dataset(
            name, seed=0, size=_MAX_SEED, **{**entry.defaults, **options}
        )
    except (AssertionError, ValueError) as error:
        raise ConfigError(
            f"task {task}: reasoning_gym:{name} refuses its options: {error}"
        ) from error
    objection = _swapped(dataset.config) or entry.objection(dataset.config)
    if objection:
        raise ConfigError(f"task {task}: {objection}")
    source = GymSource(name, entry, dataset)
    kept = sum(
        source.candidate(_hashed_seed(b"swarmnode/sample\0", i)) is not None for i in range(SAMPLED)
    )
    if kept < MIN_KEPT:
        raise ConfigError(
            f"task {task}: with these options only {kept} of {SAMPLED} questions of "
            f"reasoning_gym:{name} have a right answer; at least {MIN_KEPT} must (other options?)"
        )
    return source


def _swapped(config: Any) -> str:
    """What the library asserts, and does not under `python -O`: no minimum above its maximum."""
    for low, value in vars(config).items():
        high = low.replace("min_", "max_", 1)
        if low.startswith("min_") and value > getattr(config, high):
            return f"{low} is {value}, above {high}, which is {getattr(config, high)}"
    return ""


def _attempts(seed: int) -> Iterator[int]:
    yield seed
    for number in range(1, MAX_ATTEMPTS):
        yield _hashed_seed(b"swarmnode/attempt\0" + seed.to_bytes(4, "big"), number)


def _hashed_seed(domain: bytes, number: int) -> int:
    return int.from_bytes(hashlib.sha256(domain + number.to_bytes(4, "big")).digest()[:4], "big")
