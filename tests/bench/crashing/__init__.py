"""Parts of `tests/bench/crash.py`.

| file | what it is |
|---|---|
| `lives.py` | lives of a real node: forked from a process that imported everything once |
| `fail_points.py` | every disk operation of the node as a named point at which it can be killed |
| `judge.py` | what a crash left on disk, against a run that was never interrupted |
| `kills.py` | SIGKILL at random moments and at fail points, again and again |
| `disks.py` | a disk that is full, one that turns read-only |
| `outcome.py` | what came of one kind of fault |
| `devices.py` | stand-ins for a GPU out of memory or lost, and for a loss that is NaN |
"""
