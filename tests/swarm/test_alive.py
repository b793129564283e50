"""Dead connections and peers lost to gossip are found, living ones left alone."""

import anyio

from swarmnode.swarm.alive import Estranged, Torn, end_the_dead


class Links:
    """Connections by name; those in `silent` do not answer, those in `late` do so once in two."""

    def __init__(self, silent: set[str], late: set[str] | None = None) -> None:
        self.open = ["alive", *sorted(silent), *sorted(late or ())]
        self.ended: list[str] = []
        self.pings = 0
        self._silent = silent
        self._late = late or set()
        self._asked: dict[str, int] = {}

    def connections(self) -> list[str]:
        return list(self.open)

    async def answers(self, name: str) -> bool:
        self.pings += 1
        self._asked[name] = self._asked.get(name, 0) + 1
        if name in self._silent or (name in self._late and self._asked[name] % 2):
            await anyio.sleep_forever()
        return True

    async def end(self, name: str) -> None:
        self.open.remove(name)
        self.ended.append(name)


async def watched(links: Links, pings: int) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end_the_dead, links.connections, links.answers, links.end, 0.0, 0.001)
        while links.pings < pings:
            await anyio.sleep(0)
        tasks.cancel_scope.cancel()


def test_ends_what_does_not_answer_twice_in_a_row_and_nothing_else() -> None:
    links = Links(silent={"dead"})
    anyio.run(watched, links, 20)
    assert links.ended == ["dead"]
    assert links.open == ["alive"]


def test_one_missed_answer_is_none() -> None:
    links = Links(silent=set(), late={"busy"})
    anyio.run(watched, links, 20)
    assert links.ended == []


def test_one_dead_connection_holds_up_no_other() -> None:
    links = Links(silent={"dead", "dead too"})
    anyio.run(watched, links, 20)
    assert sorted(links.ended) == ["dead", "dead too"]


def test_who_is_without_gossip_for_long_is_parted_with() -> None:
    torn = Torn(10.0)
    assert torn.look({"p", "q"}, 0.0) == []
    assert torn.look({"p", "q"}, 9.0) == []
    assert torn.look({"q"}, 9.5) == []  # p has spoken: counted anew
    assert torn.look({"p", "q"}, 10.0) == ["q"]
    assert torn.look({"p", "q"}, 11.0) == []  # once, then counted anew
    assert torn.look({"p", "q"}, 20.0) == ["p"]


def test_peer_that_took_part_and_does_not_any_more_is_parted_with() -> None:
    estranged = Estranged(10.0)
    both, one = {"p", "q", "other"}, {"p"}
    assert estranged.look(both, {"p", "q"}, 0.0) == []
    assert estranged.look(both, one, 1.0) == []
    assert estranged.look(both, one, 10.9) == []
    assert estranged.look(both, one, 11.0) == ["q"]  # and not who never took part
    assert estranged.look({"p", "other"}, one, 12.0) == []
    assert estranged.look(both, one, 13.0) == []  # back, without having said anything yet
    assert estranged.look(both, one, 40.0) == []
    assert estranged.look(both, {"p", "q"}, 41.0) == []


def test_peer_that_comes_back_in_time_is_kept() -> None:
    estranged = Estranged(10.0)
    for now in (0.0, 20.0, 40.0):
        assert estranged.look({"p"}, {"p"}, now) == []
        assert estranged.look({"p"}, set(), now + 1) == []
        assert estranged.look({"p"}, set(), now + 10.9) == []
