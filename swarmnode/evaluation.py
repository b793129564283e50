"""Held-out accuracy: greedy answers to questions that are never trained on nor published.

Printed beside it, always: what the best constant answer to each task would score, because a task
whose answer is mostly "1" makes "always say 1" look like learning.
"""

import logging
import time

from swarmnode.errors import ConfigError
from swarmnode.generate.generator import Generator
from swarmnode.report import Evaluation
from swarmnode.tasks.scorer import Scorer
from swarmnode.tasks.taskset import TaskSet, best_constant

log = logging.getLogger(__name__)

# Held-out questions of one task below which its accuracy is called coarse: one answer more or less
# is then over 5 % of it.
_FEW = 20


def check_held_out(tasks: TaskSet, questions_per_task: int) -> None:
    """Warns, in one line, of the tasks whose accuracy will be coarse for lack of questions.

    Raises `ConfigError` for a task without any held-out question.
    """
    coarse = []
    for name in tasks.names:
        count = len(tasks.held_out(name, questions_per_task))
        if count == 0:
            raise ConfigError(
                f"task {name}: none of its questions falls into the held-out split, so nothing "
                "could be evaluated: give it more rows, or raise held_out_ratio"
            )
        if count < _FEW:
            coarse.append(f"{name} ± {1 / count:.2f} ({count} questions)")
    if coarse:
        log.warning("held-out accuracy is coarse: %s", ", ".join(coarse))


def evaluate(
    generator: Generator, scorer: Scorer, tasks: TaskSet, questions_per_task: int, round: int
) -> Evaluation:
    """Greedy accuracy by task on `questions_per_task` held-out questions each.

    The questions depend on the swarm alone, so evaluations of different nodes are comparable.
    Raises `SwarmNodeError` when generation or scoring fails.
    """
    accuracy, baseline = {}, {}
    for name in tasks.names:
        questions = tasks.held_out(name, questions_per_task)
        answers = generator.greedy(questions)
        rewards = [
            scorer.score(question, [answer.text])[0]
            for question, answer in zip(questions, answers, strict=True)
        ]
        accuracy[name] = sum(rewards) / len(rewards)
        baseline[name] = best_constant(questions)
    return Evaluation(round, time.time(), accuracy, baseline)
