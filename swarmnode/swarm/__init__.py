"""The swarm as a node sees it: moving frames between nodes, and deciding what to do with them.

    transport.py        what the node asks of a network: the contract and its events
    memory.py           the contract inside one process, for tests and simulation
    network_transport.py  the contract over the real network; the files below are its parts
      backends.py         which of the two libraries runs here
      outgoing.py         what waits to be handed to the network process
      supervisor.py       runs and restarts the network process
      channel.py          what the node and the network process say to each other
      network_process.py  the process: starts one library's host, ends with the node
      network.py          what goes on in it, whatever the library
      fetching.py         streams between two nodes: fetch by id, greeting
      budget.py           bytes a second that may be sent and received
      flood.py            which gossip is heard at all
      discovery.py        dialling given peers, greeting
      listening.py        shards' topics, and neighbours for them
      seeking.py          finding others: from the four files below, and the DHT
        address_book.py     peers that were connected before, on disk
        acquaintances.py    peers that peers know
        lan.py, mdns.py     peers on the local network; its packets
        reach.py            which addresses are dialled at all
      alone.py            why this node is alone
      host.py             what all this needs of a library
      hivemind_p2pd.py    a host that is hivemind's Go daemon
        p2pd.py             starting it
        nat.py              how its nodes behind NATs reach one another
        p2pd_control.py     talking to it
      libp2p_trio.py      starting py-libp2p, pure Python
        libp2p_host.py      the host that it is
        libp2p_gossip.py    the gate between strangers' gossip and py-libp2p
        libp2p_providers.py provider records, so that both kinds find each other
        libp2p_streams.py   its streams
        libp2p_tcp.py       its connections, which end when they are closed
        alive.py            pings, by which it finds dead connections
      multiaddr.py        addresses and peer ids, text and binary
      ports.py            which port is free
      interfaces.py       which addresses of this machine are listened on
      lifetime.py         ending with the parent process
    private.py          a private swarm's frames
    bounded.py          queues and stores that drop the oldest
    exchange.py         this node's side: publish, note offers, fetch, admit
    publishing.py       what this node offers, its own and what it serves on
    asking.py           whom to ask for an offer: its author or who holds it, too
    admission.py        what is refused, in which order, under which name
    trust.py            what peers are allowed: when the rules below are asked
      quota.py            budgets of authors, networks, newcomers; shares of what is fetched
      standing.py         what is held against an author, what it gave, its network
      numbers.py          no question answered twice, none far from its author's others
      copies.py           texts that were another's
      visible.py          characters that no reader sees
    clocks.py           whose clock is wrong
    offers.py           what peers offer now
    sharding.py         which announcements a large swarm's node hears
    mixing.py           own and peers' groups: the decisions of `sharing.rule`
      sampling.py         draws: which offers are fetched, which groups are trained on
      ability.py          how often this node is right, by task
      guard.py            less of peers while the own reward falls
      shares.py           what one author may be of a round, and who lost what of it
    novelty.py          phrases that recur in peers' texts and not in one's own
    conversion.py       groups to what travels and back
    pool.py             peers' groups that wait to be trained on

Sources: GossipSub v1.1 and Kademlia as in go-libp2p, https://github.com/libp2p/specs
"""
