"""Held-out accuracy: greedy answers to questions that are never trained on nor published.

Printed beside it, always: what the best constant answer to each task would score, because a task
whose answer is mostly "1" makes "always say 1" look like learning.
"""

import time

from swarmnode.generate.generator import Generator
from swarmnode.report import Evaluation
from swarmnode.tasks.scorer import Scorer
from swarmnode.tasks.taskset import TaskSet, best_constant


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
