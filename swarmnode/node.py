"""A node: the only place where tasks, generation, training and the swarm meet.

One round, on the main thread, waiting for no peer (`Node.run_round`):

    draw questions → generate → score → publish → take what peers sent → score it ourselves → pool
    → mix own and peers' groups → one training step → hand over the weights → report

Start order: tasks → identity → network → scorer → metrics → model → generator → resume. The first
SIGINT or SIGTERM finishes the round, saves and says goodbye; the second stops at once. A failure of
the environment (`SwarmNodeError`) costs its round and is counted; `max_failed_rounds` in a row stop
the node, as does any bug of ours.
"""

import base64
import copy
import hashlib
import json
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Any

import torch

from protocol.errors import Reason
from protocol.names import peer_id, question_seed, task_digest
from swarmnode import config, manifest
from swarmnode.config import Settings
from swarmnode.errors import SwarmNodeError
from swarmnode.evaluation import evaluate
from swarmnode.generate.encode import text_codec
from swarmnode.generate.hf import HFGenerator
from swarmnode.generate.prompt import prompt_encoder
from swarmnode.identity import Identity, load_or_create
from swarmnode.manifest import Manifest
from swarmnode.metrics import Metrics
from swarmnode.report import RoundReport, Totals
from swarmnode.rollout import Group, Question
from swarmnode.run_directory import RunDirectory, environment
from swarmnode.samples import samples_of
from swarmnode.swarm import sampling
from swarmnode.swarm.exchange import Exchange, Published
from swarmnode.swarm.pool import Pool
from swarmnode.swarm.transport import Transport
from swarmnode.tasks.answer import instruction
from swarmnode.tasks.scorer import ScoreFailed, Scorer
from swarmnode.tasks.taskset import TaskSet, TaskSpec
from swarmnode.train import checkpoint
from swarmnode.train.policy import load as load_policy
from swarmnode.train.policy import save as save_policy
from swarmnode.train.trainer import StepReport, Trainer, TrainerState

log = logging.getLogger(__name__)

# A checkpoint is due when its last duration is this share of the time since: 5 % of the run.
_CHECKPOINT_SHARE = 0.05
# A peer's completion may be this many times longer than this node's own limit, in our tokens:
# tokenizers differ. What is longer is not trained on, so peers cannot fill our memory.
_LONGEST_EXTERNAL = 2

# How soon a resting node notices a signal, seconds.
_REST_STEP_S = 0.1

MakeTransport = Callable[[Identity, bytes, str], Transport]
"""(identity, swarm id, model label) → the network, not yet open."""


class Node:
    """One member of a swarm. `open`, then `run`, then `close`, in that order; `close` always."""

    def __init__(
        self,
        settings: Settings,
        swarm: Manifest,
        directory: RunDirectory,
        make_transport: MakeTransport,
    ) -> None:
        self._settings = settings
        self._swarm = swarm
        self._directory = directory
        self._make_transport = make_transport
        self._transport: Transport | None = None
        self._scorer: Scorer | None = None
        self._metrics: Metrics | None = None
        self._totals = Totals()
        self._round = 0
        self._next_number = 0  # of the next question this node draws
        self._seconds: dict[str, float] = {}
        self._saved_at = time.monotonic()
        self._save_s = 0.0
        self._bytes_before = (0, 0)  # of the network processes before this one
        self._stopping: int | None = None  # the signal that asked for it

    # --- life ---

    def open(self) -> None:
        """Starts every part and resumes from the newest checkpoint, if there is one.

        Raises `ConfigError` for what the user can mend, `SwarmNodeError` for the environment.
        """
        settings = self._settings
        threads = settings.run.threads or os.cpu_count() or 1
        torch.set_num_threads(threads)
        self._tasks = TaskSet(
            task_specs(self._swarm),
            self._swarm.held_out_ratio,
            self._swarm.answer_format,
            task_digest,
        )
        self._tasks.open()
        self._names = {self._tasks.digest(name): name for name in self._tasks.names}
        self._swarm_id = self._swarm.swarm_id(
            {name: digest for digest, name in self._names.items()}
        )
        self._identity = load_or_create(self._directory.identity)
        seed = settings.run.seed or _seed_of(self._identity)
        self._rng = random.Random(seed)  # noqa: S311  draws of questions and rollouts
        torch.manual_seed(seed)
        self._policy = load_policy(settings.model)
        self._open_network(self._policy.label)
        self._scorer = Scorer(self._swarm.answer_format)
        self._scorer.open()
        self._open_metrics()
        self._open_learning(seed)
        self._write_run_files(seed, threads)
        self._resume()
        log.info(
            "start round=%d peer_id=%s swarm=%s model=%s",
            self._round, self._identity.peer_id, self._swarm.name, self._policy.label,
        )  # fmt: skip

    def run(self, on_report: Callable[[RoundReport], None] = lambda report: None) -> int | None:
        """Rounds until `run.rounds` are done or a signal comes; returns that signal, if any.

        `on_report` is called after every round. Raises `SwarmNodeError` after
        `run.max_failed_rounds` failures in a row.
        """
        with self._signals():
            if self._round == 0:
                self._evaluate()
            failures = 0
            while self._stopping is None and not self._is_done():
                try:
                    report = self.run_round()
                except SwarmNodeError as error:
                    failures += 1
                    self._totals.rounds_failed += 1
                    log.warning("round failed in_a_row=%d error=%s", failures, error)
                    if failures >= self._settings.run.max_failed_rounds:
                        raise
                    continue
                failures = 0
                on_report(report)
                self._rest(report.seconds["total"])
            self._finish()
        return self._stopping

    def close(self) -> None:
        """Stops every part. May be called twice, and after a failed `open`."""
        for part in (self._metrics, self._transport, self._scorer, self._directory):
            if part is not None:
                part.close()

    # --- the round ---

    def run_round(self) -> RoundReport:
        """One round; its row is in `rounds.jsonl` and its checkpoint, if due, on disk."""
        started = time.perf_counter()
        self._seconds = {}
        self._round += 1
        with self._phase("draw"):
            questions = self._draw_questions()
        with self._phase("generate"):
            answers = self._generator.generate(
                [question for _, question in questions], self._settings.generate.completions
            )
        with self._phase("score"):
            own = self._score_own(questions, answers)
        with self._phase("publish"):
            self._publish(own)
        with self._phase("collect"):
            arrived = self._collect()
            chosen = self._choose_external()
        with self._phase("train"):
            groups = [published.group for published in own]
            step = self._train(groups, chosen)
        self._seconds["total"] = time.perf_counter() - started
        report = self._report(groups, arrived, chosen, step)
        self._record(report)
        return report

    def _draw_questions(self) -> list[tuple[int, Question]]:
        """This round's questions with their numbers; held-out ones are skipped."""
        weights = [task.weight for task in self._swarm.tasks]
        drawn: list[tuple[int, Question]] = []
        while len(drawn) < self._settings.generate.questions:
            number = self._next_number
            self._next_number += 1
            name = self._rng.choices(self._tasks.names, weights)[0]
            question = self._rebuild_for(self._identity.public_key, name, number)
            if not question.held_out:
                drawn.append((number, question))
        return drawn

    def _score_own(
        self, questions: Sequence[tuple[int, Question]], answers: Sequence[Any]
    ) -> list[Published]:
        own = []
        for (number, question), completions in zip(questions, answers, strict=True):
            self._totals.tokens_generated += sum(c.token_count for c in completions)
            rewards = self._score(question, [c.text for c in completions])
            if rewards is not None:
                group = Group(
                    question,
                    tuple(completions),
                    rewards,
                    self._trainer.policy_version,
                    self._settings.generate.temperature,
                )
                own.append(Published(number, group))
        return own

    def _publish(self, own: Sequence[Published]) -> None:
        if self._settings.sharing.rule != "off":
            offered = own[: self._settings.sharing.publish]
            self._exchange.publish(offered, round=self._round, now=time.time())

    def _collect(self) -> list[Group]:
        """Peers' groups that came since the last round, scored by us; pools those with signal."""
        arrived = []
        for arrival in self._exchange.collect(round=self._round, now=time.time()):
            rewards = self._score(arrival.question, arrival.rollout.texts)
            if rewards is None:
                self._exchange.refuse(Reason.UNSCORABLE)
                continue
            group = arrival.scored(rewards)
            arrived.append(group)
            if group.has_signal:
                self._pool.add(group)
        self._totals.accepted += len(arrived)
        return arrived

    def _choose_external(self) -> list[Group]:
        """Takes this round's groups from the pool and asks peers for the next round's."""
        sharing, now = self._settings.sharing, time.time()
        if sharing.rule == "off":
            return []
        self._pool.expire(now, self._round)
        chosen = sampling.choose_groups(self._pool.groups(), sharing.external, self._rng)
        self._pool.take(chosen)
        wanted = sampling.fetch_count(
            sharing.external, sharing.fetch_factor, len(self._pool), self._exchange.in_flight
        )
        self._exchange.request(wanted, self._rng, now)
        return chosen

    def _train(self, own: Sequence[Group], chosen: Sequence[Group]) -> StepReport:
        samples = samples_of(
            [*own, *chosen],
            advantage=self._settings.train.advantage,
            encode_prompt=self._prompts.encode,
            encode_text=self._codec.encode,
            eos_id=self._policy.eos_ids[0],
            max_completion_tokens=_LONGEST_EXTERNAL * self._settings.generate.max_new_tokens,
        )
        step = self._trainer.step(samples)
        self._generator.update(self._trainer.policy_version)
        totals = self._totals
        totals.tokens_trained_own += step.tokens_own
        totals.tokens_trained_external += step.tokens_external
        totals.own_groups_trained += sum(group.has_signal for group in own)
        totals.external_groups_trained += len(chosen)
        for group in chosen:
            assert group.origin is not None
            author = peer_id(group.origin.author)
            totals.trained_from[author] = totals.trained_from.get(author, 0) + 1
        totals.rounds_without_step += step.optimizer_steps == 0
        return step

    def _score(self, question: Question, texts: Sequence[str]) -> tuple[float, ...] | None:
        """Our rewards, or None when the scorer died or hung on these texts (counted)."""
        assert self._scorer is not None
        try:
            return self._scorer.score(question, texts)
        except ScoreFailed as error:
            self._totals.scorer_failures += 1
            log.warning("scorer failed task=%s error=%s", question.task, error)
            return None

    def _rebuild_for(self, author: bytes, name: str, number: int) -> Question:
        digest = self._tasks.digest(name)
        return self._tasks.question(name, question_seed(self._swarm_id, author, digest, number))

    # --- reporting ---

    def _report(
        self,
        own: Sequence[Group],
        arrived: Sequence[Group],
        chosen: Sequence[Group],
        step: StepReport,
    ) -> RoundReport:
        assert self._transport is not None
        now, network, totals = time.time(), self._transport.status(), self._totals
        totals.published = self._exchange.published
        totals.announced = self._exchange.announced
        totals.fetched = self._exchange.fetched
        totals.refused = {reason.value: n for reason, n in self._exchange.refused.items()}
        totals.missed = dict(self._exchange.missed)
        totals.bytes_in = self._bytes_before[0] + network.bytes_in
        totals.bytes_out = self._bytes_before[1] + network.bytes_out
        totals.wall_s += self._seconds["total"]
        ages = [now - group.origin.created for group in chosen if group.origin]
        return RoundReport(
            round=self._round,
            time=now,
            policy_version=self._trainer.policy_version,
            own_reward=_mean([r for group in own for r in group.rewards]) or 0.0,
            own_reward_by_task=_by_task(own),
            own_groups=len(own),
            own_groups_with_signal=sum(group.has_signal for group in own),
            external_reward=_mean([r for group in arrived for r in group.rewards]),
            external_groups=len(arrived),
            external_groups_trained=len(chosen),
            loss=step.loss,
            grad_norm=step.grad_norm,
            kl=step.kl_own,
            kl_external=step.kl_external,
            entropy=step.entropy,
            clip_fraction=step.clip_ratio,
            staleness_s=_mean(ages),
            pool_groups=len(self._pool),
            pool_age_s=self._pool.mean_age_s(now),
            peers=len(network.peers),
            network_restarts=network.restarts,
            network_dropped=network.dropped,
            waiting_for=self._waiting_for(step, len(chosen), network.state, len(network.peers)),
            seconds=dict(self._seconds),
            totals=copy.deepcopy(totals),
        )

    def _waiting_for(self, step: StepReport, chosen: int, network: str, peers: int) -> str:
        """Why this round taught less than it could, in words; empty when all is well."""
        reasons = []
        if step.skipped == "no-samples":
            reasons.append("no signal: all completions of every group were rewarded alike")
        elif step.skipped:
            reasons.append(f"step skipped: {step.skipped} loss or gradient")
        if self._settings.sharing.rule != "off" and chosen == 0:
            if peers == 0:
                reasons.append(network)
            elif self._exchange.peers_heard == 0:
                reasons.append("training alone: no peer has announced a rollout yet")
            else:
                reasons.append("training alone: no peer's rollout with a signal at hand yet")
        return "; ".join(reasons)

    def _record(self, report: RoundReport) -> None:
        assert self._metrics is not None
        self._directory.append(self._directory.rounds, report.as_dict())
        self._metrics.record(report)
        every = self._settings.run.evaluate_every
        if every and self._round % every == 0 and not self._is_done():
            self._evaluate()
        if self._checkpoint_is_due():
            self._save()

    def _evaluate(self) -> None:
        assert self._scorer is not None
        assert self._metrics is not None
        count = self._settings.run.evaluate_questions
        evaluation = evaluate(self._generator, self._scorer, self._tasks, count, self._round)
        self._directory.append(self._directory.evaluations, evaluation.as_dict())
        self._metrics.record_evaluation(evaluation)
        log.info(
            "evaluation round=%d held_out=%.3f constant_baseline=%.3f",
            self._round, evaluation.mean_accuracy, evaluation.mean_constant_baseline,
        )  # fmt: skip

    # --- start ---

    def _open_network(self, label: str) -> None:
        self._transport = self._make_transport(self._identity, self._swarm_id, label)
        self._transport.open()
        self._exchange = Exchange(
            self._transport,
            self._settings.sharing,
            swarm_id=self._swarm_id,
            signing_key=self._identity.seed,
            public_key=self._identity.public_key,
            model_label=label,
            tasks=self._names,
            rebuild=lambda digest, seed: self._tasks.question(self._names[digest], seed),
        )
        sharing = self._settings.sharing
        self._pool = Pool(sharing.pool_groups, sharing.max_age_s, sharing.max_wait_rounds)
        status = self._transport.status()
        for address in status.addresses:
            log.info("listening address=%s", address)

    def _open_metrics(self) -> None:
        settings = self._settings.metrics
        self._metrics = Metrics(settings.host, settings.port)
        if settings.port >= 0:
            url = self._metrics.open(
                swarm=self._swarm.name, model=self._policy.label, sharing=self._settings.sharing.rule
            )
            log.info("metrics url=%s", url)

    def _open_learning(self, seed: int) -> None:
        settings, policy = self._settings, self._policy
        self._codec = text_codec(policy.tokenizer)
        self._prompts = prompt_encoder(
            policy.tokenizer, self._codec, instruction(self._swarm.answer_format)
        )
        self._generator = HFGenerator(
            policy.model,
            self._prompts,
            policy.eos_ids,
            max_new_tokens=settings.generate.max_new_tokens,
            temperature=settings.generate.temperature,
            seed=seed,
        )
        self._trainer = Trainer(
            policy.model, settings.train, policy.pad_id, settings.generate.temperature
        )

    def _write_run_files(self, seed: int, threads: int) -> None:
        self._directory.write("config.toml", config.dump(self._settings))
        self._directory.write("manifest.toml", manifest.dump(self._swarm))
        record = environment(seed, str(self._policy.device), threads)
        self._directory.write("environment.json", json.dumps(record, indent=2) + "\n")

    # --- checkpoints ---

    def _checkpoint_is_due(self) -> bool:
        every = self._settings.run.checkpoint_every
        if every:
            return self._round % every == 0
        return (time.monotonic() - self._saved_at) * _CHECKPOINT_SHARE >= self._save_s

    def _save(self) -> None:
        started = time.monotonic()
        trainer = self._trainer.state()
        checkpoint.save(
            self._directory.checkpoints,
            checkpoint.Checkpoint(self._round, trainer.model, trainer.optimizer, self._state()),
            self._settings.run.keep_checkpoints,
        )
        self._saved_at = time.monotonic()
        self._save_s = self._saved_at - started

    def _state(self) -> dict[str, Any]:
        return {
            "swarm_id": self._swarm_id.hex(),
            "policy_version": self._trainer.policy_version,
            "next_number": self._next_number,
            "totals": asdict(self._totals),
            "exchange": self._exchange.state(),
            "generator": base64.b64encode(self._generator.state()).decode(),
            "rng": checkpoint.rng_state({"node": self._rng}, {}),
        }

    def _resume(self) -> None:
        latest = checkpoint.load_latest(self._directory.checkpoints)
        for skipped in latest.skipped:
            log.warning("checkpoint skipped name=%s reason=%s", skipped.name, skipped.reason)
        found = latest.checkpoint
        if found is None:
            if latest.skipped:
                raise SwarmNodeError(
                    f"every checkpoint in {self._directory.checkpoints} is damaged: restore one, "
                    "or start afresh with another --run"
                )
            self._directory.keep_rows_up_to(-1)
            return
        state = found.state
        if state["swarm_id"] != self._swarm_id.hex():
            raise SwarmNodeError(
                f"the run in {self._directory.path} belongs to another swarm: choose another --run"
            )
        self._trainer.load_state(
            TrainerState(found.model, found.optimizer, state["policy_version"])
        )
        self._generator.restore(base64.b64decode(state["generator"]))
        self._generator.update(self._trainer.policy_version)
        checkpoint.restore_rng(state["rng"], {"node": self._rng}, {})
        self._exchange.load_state(state["exchange"])
        self._totals = Totals(**state["totals"])
        self._bytes_before = (self._totals.bytes_in, self._totals.bytes_out)
        self._next_number = state["next_number"]
        self._round = found.round
        self._directory.keep_rows_up_to(found.round)
        assert self._metrics is not None
        self._metrics.resume(copy.deepcopy(self._totals))
        log.info("resumed round=%d run=%s", self._round, self._directory.path)

    def _finish(self) -> None:
        """What a node does before it leaves: evaluate if its rounds are done, save, export."""
        if self._is_done():
            self._evaluate()
        if self._round and not self._has_saved(self._round):
            self._save()
        save_policy(self._policy, self._directory.path / "model")
        log.info("stop round=%d saved=%s", self._round, self._directory.path)

    def _has_saved(self, round: int) -> bool:
        latest = checkpoint.load_latest(self._directory.checkpoints).checkpoint
        return latest is not None and latest.round == round

    def _rest(self, spent_s: float) -> None:
        """Keeps rounds at least `run.min_round_s` apart; a signal ends the rest."""
        until = time.monotonic() + self._settings.run.min_round_s - spent_s
        while self._stopping is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _REST_STEP_S))

    def _is_done(self) -> bool:
        return 0 < self._settings.run.rounds <= self._round

    # --- time and signals ---

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - started

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def on_signal(number: int, frame: FrameType | None) -> None:
            if self._stopping is not None:
                raise KeyboardInterrupt
            self._stopping = number
            log.warning("stopping after this round; once more to stop at once")

        before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def task_specs(swarm: Manifest) -> list[TaskSpec]:
    """The manifest's tasks, as the task layer takes them."""
    return [TaskSpec(task.name, task.source, task.options, task.weight) for task in swarm.tasks]


def _seed_of(identity: Identity) -> int:
    return int.from_bytes(hashlib.sha256(identity.public_key).digest()[:6], "big")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _by_task(groups: Sequence[Group]) -> dict[str, float]:
    rewards: dict[str, list[float]] = {}
    for group in groups:
        rewards.setdefault(group.question.task, []).extend(group.rewards)
    return {task: sum(values) / len(values) for task, values in sorted(rewards.items())}
