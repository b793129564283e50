"""A phrase that recurs in peers' texts and not in one's own is novel."""

from swarmnode.swarm.novelty import RECURRENCES, WINDOW, Novelty, Shares, is_novel, ngrams

QUESTION = (90, 91)
PHRASE = (70, 71, 72)
KNOWN = [QUESTION]


def text(number: int, *, phrase: bool = False) -> tuple[int, ...]:
    """Three tokens of its own, in front of what this question's texts share with no other."""
    return (*(PHRASE if phrase else ()), 1000 + number, 2000 + number, 3000 + number)


def node_with_own(questions: int = 32, *, phrase: bool = False) -> Novelty:
    novelty = Novelty()
    for number in range(questions):
        novelty.note_own([text(number, phrase=phrase)], KNOWN)
    return novelty


def test_a_phrase_that_recurs_is_novel_once_it_did() -> None:
    novelty = node_with_own()
    for number in range(RECURRENCES):
        assert not novelty.novel("peer", text(number, phrase=True), KNOWN)
        novelty.note_peer("peer", [text(100 + number, phrase=True)], KNOWN)
    assert PHRASE in novelty.novel("peer", text(5, phrase=True), KNOWN)
    assert not novelty.novel("peer", text(5), KNOWN)


def test_peers_that_share_a_phrase_are_seen_together() -> None:
    novelty = node_with_own()
    for number in range(RECURRENCES):
        novelty.note_peer(f"peer {number}", [text(100 + number, phrase=True)], KNOWN)
    assert PHRASE in novelty.novel("another", text(5, phrase=True), KNOWN)


def test_what_the_node_writes_itself_is_not_novel() -> None:
    novelty = node_with_own(phrase=True)
    for number in range(8):
        novelty.note_peer("peer", [text(100 + number, phrase=True)], KNOWN)
    assert not novelty.novel("peer", text(5, phrase=True), KNOWN)


def test_what_question_and_answer_hold_is_not_novel() -> None:
    novelty = node_with_own()
    known = [*KNOWN, PHRASE]
    for number in range(8):
        novelty.note_peer("peer", [text(100 + number, phrase=True)], known)
    assert PHRASE not in novelty.novel("peer", PHRASE, known)


def test_a_node_that_wrote_little_calls_nothing_novel() -> None:
    # 8 of 8 questions is not more than 8 × (0 + 1) / (7 + 1) = 1
    assert not is_novel(8, 8, 0, 7)
    # but it is more than 8 × (0 + 1) / (9 + 1) = 0.8
    assert is_novel(8, 8, 0, 9)


def test_only_the_newest_questions_count() -> None:
    shares = Shares(window=2)
    for number in range(3):
        shares.note(ngrams((1, 2, 3)) if number == 0 else ngrams((4, 5, 6)))
    assert (shares.count((1, 2, 3)), shares.count((4, 5, 6)), len(shares)) == (0, 2, 2)
    assert WINDOW > RECURRENCES
