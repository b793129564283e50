"""That what a run counts stays small however many peers come and go, and still adds up."""

from dataclasses import asdict

from swarmnode.report import MAX_NAMED, Totals
from swarmnode.run_view import peers_trained_from


def test_names_the_peers_that_gave_most_and_counts_the_others() -> None:
    totals = Totals()
    for number in range(10_000):
        totals.note_trained_from(f"passing {number}")
        totals.note_trained_from(f"staying {number % 3}")
        assert len(totals.trained_from) <= 2 * MAX_NAMED
    assert sum(totals.trained_from.values()) + totals.trained_from_others == 20_000
    assert [totals.trained_from[f"staying {n}"] for n in range(3)] == [3334, 3333, 3333]
    assert "passing 9999" in totals.trained_from  # of equal ones the newest
    assert "passing 0" not in totals.trained_from


def test_few_peers_are_all_named() -> None:
    totals = Totals()
    for number in range(2 * MAX_NAMED):
        totals.note_trained_from(str(number))
    assert totals.trained_from == {str(n): 1 for n in range(2 * MAX_NAMED)}
    assert totals.trained_from_others == 0
    assert peers_trained_from(totals.trained_from, 0) == "128"
    assert peers_trained_from(totals.trained_from, 5) == "more than 128"


def test_a_checkpoint_of_before_loads_and_its_many_peers_become_few() -> None:
    state = asdict(Totals(external_groups_trained=5000))
    del state["trained_from_others"]
    totals = Totals(**state | {"trained_from": {str(n): 1 for n in range(5000)}})
    totals.note_trained_from("4")
    assert totals.trained_from["4"] == 2
    assert len(totals.trained_from) == MAX_NAMED
    assert sum(totals.trained_from.values()) + totals.trained_from_others == 5001
