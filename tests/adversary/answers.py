"""Answers made to be run by whoever evaluates them, over every allowed task.

Each would leave a mark, a file or an import, if it were evaluated, parsed by sympy, unpickled or
handed to a shell. They are scored by the real scorer process with an audit hook
in it (`sys.addaudithook`), which counts what an evaluation could not do without: compiling,
executing, opening, importing, sockets, processes. No such event may come of 100,000 answers, and
no mark. That the hook and the marks work is shown by a scorer that evaluates.
"""

import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import Figure, figure, show

from protocol.names import task_digest
from swarmnode.rollout import Question
from swarmnode.tasks import gym
from swarmnode.tasks.scorer import Scorer
from swarmnode.tasks.scoring import WAIT_S, Scoring
from swarmnode.tasks.taskset import TaskSet, TaskSpec

ROOT = Path(__file__).parents[2]
ANSWERS, FEW = 100_000, 6_000
PER_REQUEST = 50
# Ways to run `CODE`, by what might evaluate an answer: Python, its literals and formats, sympy, a
# template, a shell, a pickle, JSON that names a class, a parser of dates or numbers.
FORMS = (
    "{code}",
    "({code})",
    "[{code}]",
    "0 or {code}",
    "1 if {code} else 2",
    "[{code} for _ in [0]][0]",
    "(lambda: {code})()",
    "f'{{{code}}}'",
    "eval({quoted})",
    "exec({quoted})",
    "compile({quoted}, 'a', 'eval')",
    "Integer({code})",
    "sympify({quoted})",
    "S({quoted})",
    "Function('f')({code})",
    "lambdify((), {quoted})()",
    "{{{{ {code} }}}}",
    "${{{code}}}",
    "`{code}`",
    "$({command})",
    "; {command} #",
    "| {command}",
    "\\frac{{{code}}}{{2}}",
    "{number}/{code}",
    "{number}+{code}",
    "{number}.__class__.__base__.__subclasses__()",
    "{{'__reduce__': [{quoted}]}}",
    '{{"py/object": "os.system", "args": [{quoted}]}}',
    "!!python/object/apply:os.system [{quoted}]",
    "cos\nsystem\n(S{quoted}\ntR.",
    "# coding: utf-7\n{code}",
    "<script>{code}</script>",
    "{number}e{number}{code}",
    "{number}\n{code}",
    "\ufeff{code}",
    "{number} if {code} else {number}",
)
WRAPPINGS = ("{}", "<answer>{}</answer>", "<answer>5</answer><answer>{}</answer>", "{}\n{}", " {} ")
# Events of CPython that reading an answer raises none of.
WATCHED = (
    *("compile", "exec", "open", "import", "os.", "socket.", "subprocess.", "ctypes.", "pickle."),
    *("marshal.", "code.", "object.__setattr__", "shutil.", "tempfile.", "urllib."),
)

_HOOKED = """
import sys
sys.path.insert(0, sys.argv[1])
from swarmnode.tasks import scorer_process
EVALUATES = sys.argv[4] == "evaluates"
WATCHED = tuple(sys.argv[5].split(","))
seen = []
reading = False
def hook(event, arguments):
    if reading and event.startswith(WATCHED):
        seen.append(event)
scores = scorer_process._scores
def hooked(request):
    global reading
    if request["texts"] == ["events"]:
        return [float(len(seen))]
    reading = True
    try:
        if EVALUATES:
            for text in request["texts"]:
                try:
                    eval(text)
                except BaseException:
                    pass
        return scores(request)
    finally:
        reading = False
scorer_process._scores = hooked
sys.addaudithook(hook)
scorer_process.main(int(sys.argv[2]), int(sys.argv[3]))
"""


def measure(short: bool) -> list[Figure]:
    """Events and marks, of how many answers; what a hanging scorer does to the loop."""
    count = FEW if short else ANSWERS
    tried, events, marks, right = attack(count)
    stall_ms, gone_s = hanging()
    return [
        figure("hostile answers scored", tried, "answers", ">=", count),
        figure("code executions by hostile answers", events + marks, f"of {tried:,}", "==", 0),
        figure("hostile answers taken for right", right, f"of {tried:,}", "==", 0),
        figure("stall of the loop by a hanging scorer", stall_ms, "ms", "<", 100),
        figure("a hanging scorer is gone after", gone_s, "s", "<=", 2.0),
    ]


def attack(count: int, *, evaluates: bool = False, seed: int = 1) -> tuple[int, int, int, int]:
    """(answers scored, events, marks, answers that were right) over every allowed task."""
    tasks = TaskSet(
        [TaskSpec(name, f"reasoning_gym:{name}") for name in sorted(gym.ALLOWED)],
        *(0.1, "tag", task_digest),
    )
    tasks.open()
    rng = random.Random(seed)
    tried = right = 0
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "mark"
        scorer = Scorer("tag", time_limit_s=60.0, command=_command(evaluates))
        scorer.open()
        while tried < count:
            for name in tasks.names:
                question = tasks.question(name, rng.randrange(2**32))
                texts = [_answer(rng, mark) for _ in range(PER_REQUEST)]
                right += sum(scorer.score(question, texts))
                tried += len(texts)
        events = _events(scorer, tasks.question(tasks.names[0], 0))
        scorer.close()
        marks = len(list(Path(folder).iterdir()))
    return tried, events, marks, int(right)


def hanging() -> tuple[float, float]:
    """(milliseconds for which the loop is held, seconds until the hanging process is gone)."""
    scorer = Scorer("whole", time_limit_s=1.5)
    scoring = Scoring[int](scorer)
    scoring.open()
    pid = scorer.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # no honest or hostile answer is read any more
    watched = os.pidfd_open(pid)
    started = time.monotonic()
    question = Question("t", b"1234", 0, "2 + 3", "5", False, {"compare": "integer"})
    stalls = []
    for number in range(8):
        scoring.submit(number, question, ["5"])
    for _ in range(4):  # rounds
        before = time.monotonic()
        scoring.finished(WAIT_S)
        stalls.append(time.monotonic() - before)
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    poll.poll(60_000)
    gone_s = time.monotonic() - started
    os.close(watched)
    scoring.close()
    return max(stalls) * 1000, gone_s


def _answer(rng: random.Random, mark: Path) -> str:
    unique = f"{mark}-{rng.randrange(10**9)}"
    code = rng.choice(
        (
            f"open({unique!r}, 'w').close()",
            f"__import__('os').system('touch {unique}')",
            f"__import__('pathlib').Path({unique!r}).touch()",
            f"__import__('subprocess').run(['touch', {unique!r}])",
            f"setattr(__import__('sys'), 'marked_{rng.randrange(100)}', 1)",
            "__import__('socket').create_connection(('127.0.0.1', 9))",
            "().__class__.__base__.__subclasses__()[0]",
            "globals().update(marked=1)",
        )
    )
    form = rng.choice(FORMS)
    made = form.format(
        code=code, quoted=repr(code), command=f"touch {unique}", number=rng.randrange(100)
    )
    return rng.choice(WRAPPINGS).replace("{}", made)


def _command(evaluates: bool) -> Sequence[str]:
    """The scorer process with the hook; one that evaluates has no sandbox, or it could not act."""
    program = _HOOKED
    if evaluates:
        program = program.replace(
            "scorer_process._scores = hooked",
            "scorer_process._scores = hooked\nscorer_process._lock_down = lambda *_: {}",
        )
    return (
        *(sys.executable, "-I", "-S", "-c", program, str(ROOT), str(256 * 2**20), str(os.getpid())),
        *("evaluates" if evaluates else "reads", ",".join(WATCHED)),
    )


def _events(scorer: Scorer, question: Question) -> int:
    """How many the hook has seen; asked past `score`, which believes 0 and 1 alone."""
    request: dict[str, Any] = {
        "answer": question.answer,
        "metadata": dict(question.metadata),
        "format": "tag",
        "texts": ["events"],
    }
    return int(scorer._ask(json.loads(json.dumps(request)))[0])


if __name__ == "__main__":
    sys.exit(show(measure("--short" in sys.argv)) > 0)
