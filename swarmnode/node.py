"""A node: the only place where tasks, generation, training and the swarm meet.

One round, on the main thread, waiting for no peer (`Node.run_round`):

    draw questions → generate → score → publish → take what peers sent → score it ourselves → pool
    → mix own and peers' groups → one training step → hand over the weights → report

The parts start in the order of `assembly.py`. The first SIGINT, SIGTERM or SIGHUP finishes the
round, saves and says goodbye; the second stops at once. A failure of the environment
(`SwarmNodeError`) costs its round and is counted, and the node waits a little longer each time;
`run.max_failed_rounds` in a row stop it, as does any bug of ours.
"""

import base64
import copy
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Any

from protocol.errors import Reason
from protocol.names import peer_id, question_seed
from swarmnode import config, manifest, reporting
from swarmnode.assembly import MakeTransport, Parts, assemble
from swarmnode.config import Settings
from swarmnode.errors import SwarmNodeError
from swarmnode.evaluation import evaluate
from swarmnode.manifest import Manifest
from swarmnode.report import RoundReport, Totals
from swarmnode.rollout import Completion, Group, Question
from swarmnode.run_directory import MANIFEST, RunDirectory, environment
from swarmnode.samples import samples_of
from swarmnode.swarm import sampling
from swarmnode.swarm.exchange import Published
from swarmnode.tasks.scorer import ScoreFailed
from swarmnode.train import checkpoint
from swarmnode.train.foreign import foreign_advantages
from swarmnode.train.policy import save as save_policy
from swarmnode.train.trainer import StepReport, TrainerState

log = logging.getLogger(__name__)

# A checkpoint is due when its last duration is this share of the time since: 5 % of the run.
_CHECKPOINT_SHARE = 0.05
# A peer's completion may be this many times longer than this node's own limit, in our tokens:
# tokenizers differ. What is longer is not trained on, so peers cannot fill our memory.
_LONGEST_EXTERNAL = 2
# Ctrl-C, a supervisor's request, a terminal that was closed.
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds of rest after a failed round, doubled with every further one: a disk that is full for a
# moment does not end the node at once.
_FAILURE_PAUSE_S = 0.5
# How soon a resting node notices a signal, seconds.
_REST_STEP_S = 0.1


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
        self._closing = ExitStack()
        self._totals = Totals()
        self._round = 0
        self._next_number = 0  # of the next question this node draws
        self._seconds: dict[str, float] = {}
        self._saved_at = time.monotonic()
        self._saved_round = 0
        self._save_s = 0.0
        self._evaluated_round = -1
        self._bytes_before = (0, 0)  # moved by the processes before this one
        self._stopping: int | None = None  # the signal that asked for it

    # --- life ---

    def open(self) -> None:
        """Starts every part and resumes from the newest checkpoint, if there is one.

        Raises `ConfigError` for what the user can mend, `SwarmNodeError` for the environment.
        """
        self._parts: Parts = assemble(
            self._settings, self._swarm, self._directory, self._make_transport, self._closing
        )
        self._resume()
        self._write_run_files()  # after: a refused resume leaves the run's files as they were
        log.info(
            "start round=%d peer_id=%s swarm=%s model=%s",
            self._round, self._parts.identity.peer_id, self._swarm.name, self._parts.policy.label,
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
                    self._rest(_FAILURE_PAUSE_S * 2**failures)
                    continue
                failures = 0
                on_report(report)
                self._rest(self._settings.run.min_round_s - report.seconds["total"])
            self._finish()
        return self._stopping

    def close(self) -> None:
        """Stops every part. May be called twice, and after a failed `open`."""
        self._closing.close()

    # --- the round ---

    def run_round(self) -> RoundReport:
        """One round; its row is in `rounds.jsonl` and its checkpoint, if due, on disk."""
        started = time.perf_counter()
        self._seconds = {}
        self._round += 1
        with self._phase("draw"):
            paired = self._choose_paired()
            questions = self._draw_questions(len(paired))
        with self._phase("generate"):
            answers = self._parts.generator.generate(
                [*(question for _, question in questions), *paired],
                self._parts.breadth.completions,
            )
        with self._phase("score"):
            own = self._score_own(questions, answers[: len(questions)])
            second = map(self._scored, paired, answers[len(questions) :])
        with self._phase("publish"):
            self._publish(own)
        with self._phase("collect"):
            arrived = self._collect()
            chosen = self._choose_external()
        with self._phase("train"):
            groups = [published.group for published in own]
            step = self._train([*groups, *filter(None, second)], chosen)
        self._seconds["total"] = time.perf_counter() - started
        report = self._report(groups, arrived, chosen, step)
        self._record(report)
        return report

    def _choose_paired(self) -> list[Question]:
        """Peers' questions that this node answers too, in the place of own ones."""
        if not self._shares:
            return []
        parts = self._parts
        chosen = parts.mixing.pair(parts.pool.groups(), parts.exchange.lag, parts.rng)
        return [group.question for group in chosen]

    def _draw_questions(self, paired: int) -> list[tuple[int, Question]]:
        """This round's fresh questions with their numbers; held-out ones are skipped."""
        weights = [task.weight for task in self._swarm.tasks]
        drawn: list[tuple[int, Question]] = []
        count = self._parts.mixing.own_questions(self._settings.generate.questions) - paired
        while len(drawn) < max(1, count):
            number = self._next_number
            self._next_number += 1
            name = self._parts.rng.choices(self._parts.tasks.names, weights)[0]
            question = self._own_question(name, number)
            if not question.held_out:
                drawn.append((number, question))
        return drawn

    def _own_question(self, name: str, number: int) -> Question:
        parts = self._parts
        digest = parts.tasks.digest(name)
        seed = question_seed(parts.swarm_id, parts.identity.public_key, digest, number)
        return parts.tasks.question(name, seed)

    def _score_own(
        self, questions: Sequence[tuple[int, Question]], answers: Sequence[Sequence[Completion]]
    ) -> list[Published]:
        """The groups of own fresh questions."""
        own = [
            Published(number, group)
            for (number, question), completions in zip(questions, answers, strict=True)
            if (group := self._scored(question, completions)) is not None
        ]
        groups = [published.group for published in own]
        self._parts.mixing.note_own(groups)
        self._parts.breadth.note(groups)
        return own

    def _scored(self, question: Question, completions: Sequence[Completion]) -> Group | None:
        """This node's answers with their rewards; None when they cannot be scored."""
        self._totals.tokens_generated += sum(c.token_count for c in completions)
        rewards = self._score(question, [c.text for c in completions])
        if rewards is None:
            return None
        version, temperature = (
            self._parts.trainer.policy_version,
            self._settings.generate.temperature,
        )
        return Group(question, tuple(completions), rewards, version, temperature)

    def _publish(self, own: Sequence[Published]) -> None:
        if self._shares:
            offered = own[: self._settings.sharing.publish]
            self._parts.exchange.publish(offered, round=self._round, now=time.time())

    def _collect(self) -> list[Group]:
        """Peers' groups that came since the last round, scored by us; pools those with signal."""
        arrived = []
        for arrival in self._parts.exchange.collect(round=self._round, now=time.time()):
            rewards = self._score(arrival.question, arrival.rollout.texts)
            if rewards is None:
                self._parts.exchange.refuse(Reason.UNSCORABLE)
                continue
            group = arrival.scored(rewards)
            arrived.append(group)
            if self._parts.mixing.is_useful(group):
                self._parts.pool.add(group)
        self._totals.accepted += len(arrived)
        return arrived

    def _choose_external(self) -> list[Group]:
        """Takes this round's groups from the pool and asks peers for the next round's."""
        sharing, parts, now = self._settings.sharing, self._parts, time.time()
        if not self._shares:
            return []
        parts.pool.expire(now, self._round)
        chosen = parts.mixing.choose(parts.pool.groups(), parts.exchange.lag, parts.rng)
        parts.pool.take(chosen)
        wanted = sampling.fetch_count(
            parts.mixing.external, sharing.fetch_factor, len(parts.pool), parts.exchange.in_flight
        )
        parts.exchange.request(wanted, parts.rng, now)
        return chosen

    def _train(self, own: Sequence[Group], chosen: Sequence[Group]) -> StepReport:
        parts, hybrid = self._parts, self._settings.hybrid

        def advantages(task: str, rewards: Sequence[float]) -> Sequence[float]:
            return foreign_advantages(rewards, parts.mixing.ability.rate(task), hybrid)

        samples = samples_of(
            [*own, *chosen],
            advantage=self._settings.train.advantage,
            encode_prompt=self._parts.prompts.encode,
            encode_text=self._parts.codec.encode,
            eos_id=self._parts.policy.eos_ids[0],
            max_completion_tokens=_LONGEST_EXTERNAL * self._settings.generate.max_new_tokens,
            foreign_advantages=advantages if self._settings.sharing.rule == "hybrid" else None,
        )
        share = parts.mixing.foreign_share
        every = self._settings.sharing.gain_every
        if every and self._round % every == 0:
            alignment = parts.trainer.alignment(samples, share)
            if alignment is not None:
                parts.gain.note(alignment.own, alignment.peers)
        step = parts.trainer.step(samples, share)
        parts.generator.update(parts.trainer.policy_version)
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
        try:
            return self._parts.scorer.score(question, texts)
        except ScoreFailed as error:
            self._totals.scorer_failures += 1
            log.warning("scorer failed task=%s error=%s", question.task, error)
            return None

    # --- what was done ---

    def _report(
        self,
        own: Sequence[Group],
        arrived: Sequence[Group],
        chosen: Sequence[Group],
        step: StepReport,
    ) -> RoundReport:
        network, exchange, totals = (
            self._parts.transport.status(),
            self._parts.exchange,
            self._totals,
        )
        totals.published = exchange.published
        totals.announced = exchange.announced
        totals.fetched = exchange.fetched
        totals.refused = {reason.value: count for reason, count in exchange.refused.items()}
        totals.missed = dict(exchange.missed)
        totals.bytes_in = self._bytes_before[0] + network.bytes_in
        totals.bytes_out = self._bytes_before[1] + network.bytes_out
        totals.wall_s += self._seconds["total"]
        return reporting.round_report(
            self._round,
            time.time(),
            reporting.Groups(own, arrived, chosen),
            step,
            self._parts,
            network,
            dict(self._seconds),
            copy.deepcopy(totals),
            shares=self._shares,
        )

    def _record(self, report: RoundReport) -> None:
        self._directory.append(self._directory.rounds, report.as_dict())
        self._parts.metrics.record(report)
        every = self._settings.run.evaluate_every
        if every and self._round % every == 0:
            self._evaluate()
        if self._checkpoint_is_due():
            self._save()

    def _evaluate(self) -> None:
        """Held-out accuracy of the policy as it is; once per round at most."""
        if self._evaluated_round == self._round:
            return
        parts, count = self._parts, self._settings.run.evaluate_questions
        evaluation = evaluate(parts.generator, parts.scorer, parts.tasks, count, self._round)
        self._directory.append(self._directory.evaluations, evaluation.as_dict())
        parts.metrics.record_evaluation(evaluation)
        self._evaluated_round = self._round
        log.info(
            "evaluation round=%d held_out=%.3f constant_baseline=%.3f",
            self._round, evaluation.mean_accuracy, evaluation.mean_constant_baseline,
        )  # fmt: skip

    def _write_run_files(self) -> None:
        self._directory.write("config.toml", config.dump(self._settings))
        self._directory.write(MANIFEST, manifest.dump(self._swarm))
        parts = self._parts
        record = environment(parts.seed, str(parts.policy.device), parts.threads)
        self._directory.write("environment.json", json.dumps(record, indent=2) + "\n")

    # --- checkpoints ---

    def _checkpoint_is_due(self) -> bool:
        every = self._settings.run.checkpoint_every
        if every:
            return self._round % every == 0
        return (time.monotonic() - self._saved_at) * _CHECKPOINT_SHARE >= self._save_s

    def _save(self) -> None:
        started = time.monotonic()
        trainer = self._parts.trainer.state()
        checkpoint.save(
            self._directory.checkpoints,
            checkpoint.Checkpoint(self._round, trainer.model, trainer.optimizer, self._state()),
            self._settings.run.keep_checkpoints,
        )
        self._saved_round = self._round
        self._saved_at = time.monotonic()
        self._save_s = self._saved_at - started

    def _state(self) -> dict[str, Any]:
        parts = self._parts
        return {
            "swarm_id": parts.swarm_id.hex(),
            "policy_version": parts.trainer.policy_version,
            "next_number": self._next_number,
            "evaluated_round": self._evaluated_round,
            "totals": asdict(self._totals),
            "exchange": parts.exchange.state(),
            **{name: part.state() for name, part in self._remembering().items()},
            "generator": base64.b64encode(parts.generator.state()).decode(),
            "rng": checkpoint.rng_state({"node": parts.rng}, {}),
        }

    def _remembering(self) -> dict[str, Any]:
        """The parts that decide by what they saw, by their name in a checkpoint."""
        parts = self._parts
        return {"mixing": parts.mixing, "gain": parts.gain, "breadth": parts.breadth}

    def _resume(self) -> None:
        latest = checkpoint.load_latest(self._directory.checkpoints)
        for skipped in latest.skipped:
            log.warning("checkpoint skipped name=%s reason=%s", skipped.name, skipped.reason)
        found, parts = latest.checkpoint, self._parts
        if found is None:
            if latest.skipped:
                raise SwarmNodeError(
                    f"every checkpoint in {self._directory.checkpoints} is damaged: restore one, "
                    "or start afresh with another --run"
                )
            self._directory.keep_rows_up_to(-1)
            return
        state = found.state
        parts.trainer.load_state(
            TrainerState(found.model, found.optimizer, state["policy_version"])
        )
        parts.generator.restore(base64.b64decode(state["generator"]))
        parts.generator.update(parts.trainer.policy_version)
        checkpoint.restore_rng(state["rng"], {"node": parts.rng}, {})
        parts.exchange.load_state(state["exchange"])
        for name, part in self._remembering().items():
            if name in state:  # a checkpoint of before a part was added lacks it
                part.load_state(state[name])
        self._totals = Totals(**state["totals"])
        self._bytes_before = (self._totals.bytes_in, self._totals.bytes_out)
        self._next_number = state["next_number"]
        self._evaluated_round = state["evaluated_round"]
        self._round = self._saved_round = found.round
        self._directory.keep_rows_up_to(found.round)
        parts.metrics.resume(copy.deepcopy(self._totals))
        log.info("resumed round=%d run=%s", self._round, self._directory.path)

    # --- the end, time and signals ---

    def _finish(self) -> None:
        """What a node does before it leaves: evaluate if its rounds are done, save, export."""
        if self._is_done():
            self._evaluate()
        if self._round > self._saved_round:
            self._save()
        save_policy(self._parts.policy, self._directory.path / "model")
        log.info("stop round=%d saved=%s", self._round, self._directory.path)

    @property
    def _shares(self) -> bool:
        """Whether this node exchanges at all: it may train alone by choice."""
        return self._settings.sharing.rule != "off" and self._settings.network.backend != "off"

    def _is_done(self) -> bool:
        return 0 < self._settings.run.rounds <= self._round

    def _rest(self, duration_s: float) -> None:
        """Does nothing for so long, if it is positive; a signal ends it."""
        until = time.monotonic() + duration_s
        while self._stopping is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _REST_STEP_S))

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

        before = {s: signal.signal(s, on_signal) for s in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
