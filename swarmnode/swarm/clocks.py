"""Whose clock is wrong, in words for a person: ours, or that of the peer whose offers are refused.

Of each peer the last word counts. One clock that differs from those of most others is the wrong
one, and with two nobody can tell. Peers can lie about it: what follows is a sentence, no more.
"""

from collections import OrderedDict

from swarmnode.swarm.bounded import Budget, RecentIds

_MAX_PEERS = 1024  # remembered; keys cost a stranger nothing
_FORGET_S = 3600.0
_NOTES, _NOTES_WINDOW_S = 5, 600.0  # a person needs to read it once, not from every stranger
_QUORUM = 2  # peers that must agree before this machine's clock is doubted


class Clocks:
    """What the announcements heard say about clocks."""

    def __init__(self) -> None:
        # How far each peer's clock is ahead of ours; 0.0 where it is right enough to be accepted.
        self._ahead_s: OrderedDict[str, float] = OrderedDict()
        self._noted = RecentIds(_MAX_PEERS, _FORGET_S)
        self._budget = Budget(_NOTES, _NOTES_WINDOW_S)

    def accept(self, peer: str) -> None:
        """Takes note that `peer` announced something with a time that may be."""
        self._note(peer, 0.0)

    def refuse(self, peer: str, created: float, now: float) -> str:
        """Takes note that an announcement of `peer`, made at `created` by its clock, was refused
        for that at `now`; returns what a person should read about it, "" when it was said."""
        self._note(peer, created - now)
        if peer.encode() in self._noted or not self._budget.allows("everyone", now):
            return ""
        self._noted.add(peer.encode(), now)
        off = f"{abs(created - now):.0f} s {'ahead of' if created > now else 'behind'}"
        note = f"refused what peer {peer} announced: its clock is {off} this machine's"
        return f"{note}; {self.problem() or 'one of the two is wrong: set both by NTP'}"

    def problem(self) -> str:
        """What most peers say about this machine's clock; "" while they find nothing wrong."""
        values = sorted(self._ahead_s.values())
        right = values.count(0.0)
        ahead = [value for value in values if value > 0]
        behind = [value for value in values if value < 0]
        many = max(ahead, behind, key=len)
        if len(many) < _QUORUM or len(many) <= right:
            return ""
        off_s = many[len(many) // 2]
        where = "behind" if off_s > 0 else "ahead of"
        return (
            f"this machine's clock is {abs(off_s):.0f} s {where} those of {len(many)} peers: "
            "set it by NTP"
        )

    def _note(self, peer: str, ahead_s: float) -> None:
        self._ahead_s[peer] = ahead_s
        self._ahead_s.move_to_end(peer)
        while len(self._ahead_s) > _MAX_PEERS:
            self._ahead_s.popitem(last=False)
