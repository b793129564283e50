"""Attacks over the real network, by both libraries: the victim goes on with its neighbour."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import zstandard
from parts import Stranger, item_of, rollout
from real import BACKENDS, Workload, address, attacked, author, met

from protocol.envelope import COMPRESSED_ROLLOUT
from protocol.errors import Reason
from protocol.limits import HEADER_BYTES

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.battery]


@pytest.fixture(scope="module", params=BACKENDS)
def work(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workload]:
    made = Workload(tmp_path_factory.mktemp(request.param), request.param)
    met(made.network, made.honest.transport)  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.fixture(scope="module")
def liar(work: Workload, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    made = author(tmp_path_factory.mktemp("liar"), work.backend, address(work.network))
    met(made.transport)  # type: ignore[arg-type]
    yield made
    made.transport.close()


def goes_on(work: Workload) -> None:
    """The honest neighbour's rollouts arrive, and the network process is the same."""
    published, admitted = work.run(2.0, patience_s=60.0)
    assert admitted == published > 0
    assert work.network.status().restarts == 0


def bomb(liar: Stranger, n: int) -> None:
    """4 MiB in a compressed body that says so."""
    header = liar.seal(rollout(n, ["a"])).frame[:HEADER_BYTES]
    body = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(2**22))
    serve(liar, n, bytes((1, COMPRESSED_ROLLOUT)) + header[2:] + body)


def garbage(liar: Stranger, n: int) -> None:
    serve(liar, n, b"\x01\x01" + bytes(300))


def another_size(liar: Stranger, n: int) -> None:
    liar.offer(rollout(n, ["a"], time.time()), created=time.time(), frame_bytes=9)


def withheld(liar: Stranger, n: int) -> None:
    made = rollout(n, ["a"], time.time())
    liar.announce(item_of(liar.seal(made), made), created=time.time(), round=n)


def serve(liar: Stranger, n: int, frame: bytes) -> None:
    made = rollout(n, ["a"], time.time())
    sealed = liar.seal(made)
    liar.transport.hold(sealed.id, frame)
    liar.announce(
        item_of(sealed, made)._replace(frame_bytes=len(frame)), created=time.time(), round=n
    )


SERVED: dict[Callable[[Stranger, int], None], Reason | str] = {
    withheld: "absent",
    bomb: Reason.BAD_COMPRESSION,
    garbage: Reason.BAD_SIGNATURE,
    another_size: Reason.NOT_ANNOUNCED,
}


@pytest.mark.parametrize(("attack", "why"), SERVED.items(), ids=[f.__name__ for f in SERVED])
def test_what_a_liar_serves_is_refused(
    work: Workload, liar: Stranger, attack: Callable[[Stranger, int], None], why: Reason | str
) -> None:
    exchange = work.victim.exchange

    def count() -> int:
        return exchange.refused[why] if isinstance(why, Reason) else exchange.missed[why]

    before = count()
    attack(liar, list(SERVED).index(attack))
    until = time.monotonic() + 60
    while count() == before and time.monotonic() < until:
        work.run(0.5, patience_s=10.0)
    assert count() == before + 1


def test_a_liar_is_located_and_in_the_end_cut_off(work: Workload, liar: Stranger) -> None:
    """After a withheld rollout and three lies above: 1 + 4 + 4 + 4 points."""
    standing = work.victim.exchange._trust.standing
    assert standing.network(liar.me.public_key) == "127.0.0.0/24"
    assert standing.is_avoided(liar.me.public_key, time.time())
    until = time.monotonic() + 60
    while work.network.status().peers != (work.honest.me.peer_id,):
        assert time.monotonic() < until, "the liar is still connected"
        time.sleep(0.1)
    goes_on(work)


@pytest.mark.parametrize("kind", ["silent", "silent-hello"])
def test_thousands_of_silent_streams_keep_nobody_out(work: Workload, kind: str) -> None:
    with attacked(address(work.network), kind, 2000, 15):
        goes_on(work)
    goes_on(work)


def test_slow_readers_keep_nobody_out(work: Workload) -> None:
    """They ask for frames of the largest size, and take none."""
    ids = []
    now = time.time()
    for n in range(8):
        made = rollout(10_000 + n, [f"{n}" * 32_000] * 8, now)
        sealed = work.honest.seal(made)
        work.network.hold(sealed.id, sealed.frame)
        ids.append(sealed.id)
    with attacked(address(work.network), "slow-reader", 200, 15, b"".join(ids).hex()):
        goes_on(work)


@pytest.mark.parametrize("kind", ["one-key", "many-keys"])
def test_a_flood_ends_nothing(work: Workload, kind: str) -> None:
    with attacked(address(work.network), kind, 500, 8) as stranger:
        published, admitted = work.run(8.0, patience_s=20.0)
        stranger.wait(60)
        assert stranger.stdout is not None
        said = Counter(line.split()[0] for line in stranger.stdout)
    assert admitted >= 0.5 * published  # how much of it on a quiet machine: `floods.py`
    if kind == "one-key":  # who passes on what others sign is not always known
        assert said["cut"]
    goes_on(work)
