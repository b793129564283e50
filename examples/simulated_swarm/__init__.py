"""A swarm of thousands in one process, replayable by seed: the node's own exchange and sharing code
over a simulated network, with made-up groups in place of models.

    signing.py  a counted stand-in for Ed25519
    air.py      the network: delays, losses, byte budgets, nodes that are gone
    member.py   one node: its round as `swarmnode.node` does it, and a liar
    checks.py   what must hold in every round
    growth.py   whether anything grows in the long run
    swarm.py    all of it: the clock, joining and leaving, what is measured

Real: everything under `swarmnode.swarm` that decides (exchange, asking, offers, admission,
sharding, sampling, mixing, pool), the message codec, sizes and ids. Simulated: GossipSub and
streams. What GossipSub adds (copies, control messages) is in no figure here.
"""
