"""What a node says about clocks, by its own and its peers'."""

from swarmnode.swarm.clocks import Clocks

NOW = 1_000_000.0


def test_one_peer_whose_clock_differs_is_named_with_how_far_and_what_to_do():
    clocks = Clocks()
    assert clocks.refuse("12D3A", NOW + 3600, NOW) == (
        "refused what peer 12D3A announced: its clock is 3600 s ahead of this machine's; "
        "one of the two is wrong: set both by NTP"
    )
    assert clocks.problem() == "", "one against one: nobody can tell"


def test_clock_that_most_peers_differ_from_is_this_machines():
    clocks = Clocks()
    clocks.refuse("12D3A", NOW - 3700, NOW)
    assert clocks.refuse("12D3B", NOW - 3600, NOW).endswith(
        "its clock is 3600 s behind this machine's; "
        "this machine's clock is 3600 s ahead of those of 2 peers: set it by NTP"
    )


def test_peers_that_differ_each_in_their_own_way_leave_this_machines_clock_in_peace():
    clocks = Clocks()
    clocks.refuse("12D3A", NOW - 3600, NOW)
    clocks.refuse("12D3B", NOW + 3600, NOW)
    assert clocks.problem() == ""


def test_two_wrong_clocks_among_many_right_ones_are_theirs():
    clocks = Clocks()
    for peer in ("12D3A", "12D3B"):
        clocks.refuse(peer, NOW - 3600, NOW)
    for peer in ("12D3C", "12D3D"):
        clocks.accept(peer)
    assert clocks.problem() == ""


def test_clock_that_is_set_wrong_during_a_run_is_found():
    clocks = Clocks()
    for peer in ("12D3A", "12D3B", "12D3C"):
        clocks.accept(peer)
        clocks.refuse(peer, NOW - 3600, NOW)
    assert clocks.problem()


def test_problem_ends_when_the_clocks_were_set():
    clocks = Clocks()
    for peer in ("12D3A", "12D3B"):
        clocks.refuse(peer, NOW - 3600, NOW)
    assert clocks.problem()
    for peer in ("12D3A", "12D3B"):
        clocks.accept(peer)
    assert clocks.problem() == ""


def test_each_peer_is_said_once_and_a_flood_of_keys_says_little():
    clocks = Clocks()
    said = [clocks.refuse(f"12D3{n % 50}", NOW + 3600, NOW) for n in range(100)]
    assert len([text for text in said if text]) == 5
