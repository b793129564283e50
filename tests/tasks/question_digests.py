"""Prints the SHA-256 of the first questions of every allowed task, as JSON.

Run as a program by `test_gym.py`, with different hash seeds; its output is also the content of
`question_digests.json`, which pins the questions across machines and releases.
"""

import hashlib
import json
import sys

from swarmnode.tasks import gym

SEEDS = (*range(20), 2**31, 2**32 - 1)


def main() -> None:
    digests = {}
    for name in gym.ALLOWED:
        source = gym.open_gym(name, name, {})
        hashed = hashlib.sha256()
        for seed in SEEDS:
            draft = source.draft(seed)
            metadata = json.dumps(dict(draft.metadata), sort_keys=True)
            hashed.update("\0".join((draft.prompt, draft.answer, metadata, "")).encode())
        digests[name] = hashed.hexdigest()
    json.dump(digests, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
