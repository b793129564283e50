"""Commands of `swarmnode` by family; `cli.py` has those that run nodes, and puts all together.

| file | what it has |
|---|---|
| `options.py` | options that several families share |
| `looking.py` | status, top, doctor, report, export, eval, inspect; and pause, resume |
| `keys.py` | `keys …` |

As in `cli.py`, heavy imports are inside the commands.
"""
