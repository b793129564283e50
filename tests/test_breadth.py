"""G grows while few groups have a signal, and shrinks again."""

import json

from fakes import own_group

from swarmnode.breadth import WINDOW_GROUPS, Breadth

FLAT, MIXED = own_group([0.0, 0.0]), own_group([1.0, 0.0])


def test_doubles_up_to_the_limit_where_learning_stalls() -> None:
    breadth, seen = Breadth(8, 24), []
    for _ in range(3):
        breadth.note([FLAT] * WINDOW_GROUPS)
        seen.append(breadth.completions)
    assert seen == [16, 24, 24]


def test_waits_for_a_whole_window_after_a_change() -> None:
    breadth = Breadth(8, 64)
    breadth.note([FLAT] * WINDOW_GROUPS)
    breadth.note([FLAT] * (WINDOW_GROUPS - 1))
    assert breadth.completions == 16
    breadth.note([FLAT])
    assert breadth.completions == 32


def test_comes_back_when_most_groups_teach_and_never_below_the_least() -> None:
    breadth = Breadth(8, 64)
    breadth.note([FLAT] * WINDOW_GROUPS)
    breadth.note([MIXED] * 2 * WINDOW_GROUPS)
    assert breadth.completions == 8


def test_stays_between_the_bounds_and_without_a_limit() -> None:
    breadth = Breadth(8, 64)
    breadth.note([FLAT, MIXED] * WINDOW_GROUPS)  # half
    assert breadth.completions == 8
    off = Breadth(8, 0)
    off.note([FLAT] * WINDOW_GROUPS)
    assert off.completions == 8


def test_state_continues_where_it_was_taken() -> None:
    one, other = Breadth(8, 64), Breadth(8, 64)
    one.note([FLAT] * (WINDOW_GROUPS + 5))
    other.load_state(json.loads(json.dumps(one.state())))
    for breadth in (one, other):
        breadth.note([FLAT] * (WINDOW_GROUPS - 5))
    assert other.completions == one.completions == 32
    smaller = Breadth(4, 16)
    smaller.load_state(one.state())
    assert smaller.completions == 16
