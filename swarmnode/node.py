"""A node: the only place where tasks, generation, training and the swarm meet.

One round, on the main thread, waiting for no peer (`Node.run_round`):

    draw questions → generate → score → publish → take what peers sent → score it ourselves → pool
    → mix own and peers' groups → one training step → hand over the weights → report

With `generate.overlap` the next round's questions are asked just before the step (`ahead.py`).

The parts start in the order of `assembly.py`. The first SIGINT, SIGTERM or SIGHUP finishes the
round, saves and says goodbye; the second stops at once. A failure of the environment
(`SwarmNodeError`) costs its round and is counted, and the node waits a little longer each time;
`run.max_failed_rounds` in a row stop it, as do at once a device that is gone and any bug of ours.
"""

import copy
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from protocol.names import peer_id, question_seed
from swarmnode import config, deadline, failures, manifest, reporting
from swarmnode.ahead import Ahead, Asked
from swarmnode.assembly import MakeTransport, Parts, assemble
from swarmnode.config import Settings
from swarmnode.errors import DeviceFailed, SwarmNodeError
from swarmnode.evaluation import evaluate
from swarmnode.generation import StartEngine
from swarmnode.life import Phase
from swarmnode.manifest import Manifest
from swarmnode.pausing import LOOK_S, Pause
from swarmnode.report import RoundReport
from swarmnode.resuming import PUBLISHED, Checkpoints, Progress, PublishedBefore
from swarmnode.rollout import Completion, Group, Question
from swarmnode.run_directory import MANIFEST, RunDirectory, environment
from swarmnode.samples import samples_of
from swarmnode.stopping import Stop
from swarmnode.swarm import sampling
from swarmnode.swarm.admission import MAX_AHEAD_S
from swarmnode.swarm.publishing import Published
from swarmnode.tasks.scorer import ScoreFailed
from swarmnode.train.foreign import foreign_advantages
from swarmnode.train.policy import save as save_policy
from swarmnode.train.trainer import StepReport

log = logging.getLogger(__name__)

# A peer's completion may be this many times longer than this node's own limit, in our tokens:
# tokenizers differ. What is longer is not trained on, so peers cannot fill our memory.
_LONGEST_EXTERNAL = 2
# Seconds of rest after a failed round, doubled with every further one: a disk that is full for a
# moment does not end the node at once.
_FAILURE_PAUSE_S = 0.5


class Node:
    """One member of a swarm. `open`, then `run`, then `close`, in that order; `close` always."""

    def __init__(
        self,
        settings: Settings,
        swarm: Manifest,
        directory: RunDirectory,
        make_transport: MakeTransport,
        start_engine: StartEngine | None = None,
    ) -> None:
        self._settings = settings
        self._swarm = swarm
        self._directory = directory
        self._make_transport = make_transport
        self._start_engine = start_engine
        self._closing = ExitStack()
        self._progress = Progress()
        self._checkpoints = Checkpoints(settings.run, directory)
        self._published = PublishedBefore(
            directory.path / PUBLISHED, settings.sharing.max_age_s + MAX_AHEAD_S
        )
        self._stop = Stop()
        self._seconds: dict[str, float] = {}
        self._bytes_before = (0, 0)  # moved by the processes before this one

    # --- life ---

    def open(self) -> None:
        """Starts every part and resumes from the newest checkpoint, if there is one.

        Raises `ConfigError` for what the user can mend, `SwarmNodeError` for the environment.
        """
        self._parts: Parts = assemble(
            self._settings,
            self._swarm,
            self._directory,
            self._make_transport,
            self._closing,
            self._start_engine,
        )
        self._progress = self._checkpoints.resume(self._parts)
        self._published.load()
        totals = self._progress.totals
        self._bytes_before = (totals.bytes_in, totals.bytes_out)
        self._write_run_files()  # after: a refused resume leaves the run's files as they were
        log.info(
            "start round=%d peer_id=%s swarm=%s model=%s",
            self._progress.round, self._parts.identity.peer_id, self._swarm.name,
            self._parts.policy.label,
        )  # fmt: skip

    @failures.of_the_device()
    def run(self, on_report: Callable[[RoundReport], None] = lambda report: None) -> int | None:
        """Rounds until `run.rounds` are done or a signal comes; returns that signal, if any.

        `on_report` is called after every round. Raises `SwarmNodeError` after
        `run.max_failed_rounds` failures in a row, `DeviceFailed` at once.
        """
        with self._stop.listening():
            self._directory.tell(Phase.RUNNING)
            if self._progress.round == 0:
                self._evaluate()
            in_a_row = 0
            pause = Pause(self._directory, self._parts.metrics.record_pause)
            while self._stop.signal is None and not self._is_done():
                if pause.holds():
                    self._stop.rest(LOOK_S)
                    continue
                try:
                    with failures.of_the_device():
                        report = self.run_round()
                except DeviceFailed:
                    raise
                except SwarmNodeError as error:
                    in_a_row += 1
                    self._progress.totals.rounds_failed += 1
                    self._parts.metrics.record_failure(failures.cause_of(error))
                    log.warning("round failed in_a_row=%d error=%s", in_a_row, error)
                    if in_a_row >= self._settings.run.max_failed_rounds:
                        raise
                    self._directory.tell(Phase.WAITING, str(error))
                    self._stop.rest(_FAILURE_PAUSE_S * 2**in_a_row)
                    continue
                if in_a_row:
                    self._directory.tell(Phase.RUNNING)
                in_a_row = 0
                on_report(report)
                self._stop.rest(self._settings.run.min_round_s - report.seconds["total"])
            self._finish()
        return self._stop.signal

    def close(self) -> None:
        """Stops every part. May be called twice, and after a failed `open`."""
        self._closing.close()

    # --- the round ---

    def run_round(self) -> RoundReport:
        """One round; its row is in `rounds.jsonl` and its checkpoint, if due, on disk."""
        started = time.perf_counter()
        self._seconds = {}
        self._progress.round += 1
        with self._phase("draw"):
            ahead, self._progress.ahead = self._progress.ahead, None
            asked = self._draw() if ahead is None else ahead.asked
        with self._phase("generate"):
            generator = self._parts.generator
            if ahead is None:
                answers = generator.generate(asked.all, self._parts.breadth.completions)
            else:
                answers = generator.finish()
        with self._phase("score"):
            own = self._score_own(asked.questions, answers[: len(asked.questions)])
            second = map(self._scored, asked.paired, answers[len(asked.questions) :])
        with self._phase("publish"):
            self._publish(own)
        with self._phase("collect"):
            arrived = self._collect()
            chosen = self._choose_external()
        with self._phase("train"):
            self._free_or_use_engine()
            groups = [published.group for published in own]
            step = self._train([*groups, *filter(None, second)], chosen)
            self._probe()
        self._seconds["total"] = time.perf_counter() - started
        report = self._report(groups, arrived, chosen, step)
        self._record(report)
        return report

    def _draw(self) -> Asked:
        paired = self._choose_paired()
        return Asked(self._draw_questions(len(paired)), paired)

    def _free_or_use_engine(self) -> None:
        """The generator's part of the training phase: to rest, or to answer the next questions."""
        parts, progress = self._parts, self._progress
        if self._settings.generate.overlap and not self._is_done():
            before = (progress.next_number, parts.rng.getstate(), parts.generator.state())
            progress.ahead = Ahead(self._draw(), *before)
            parts.generator.begin(progress.ahead.asked.all, parts.breadth.completions)
        elif self._settings.sharing.role != "rollout":
            parts.generator.rest()

    def _choose_paired(self) -> list[Question]:
        """Peers' questions that this node answers too, in the place of own ones."""
        if not self._takes:
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
            number = self._progress.next_number
            self._progress.next_number += 1
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
        self._parts.defence.note_own(groups)
        self._parts.breadth.note(groups)
        return own

    def _scored(self, question: Question, completions: Sequence[Completion]) -> Group | None:
        """This node's answers with their rewards; None when they cannot be scored."""
        self._progress.totals.tokens_generated += sum(c.token_count for c in completions)
        rewards = self._score(question, [c.text for c in completions])
        if rewards is None:
            return None
        version, temperature = (
            self._parts.generator.version,
            self._settings.generate.temperature,
        )
        return Group(question, tuple(completions), rewards, version, temperature)

    def _publish(self, own: Sequence[Published]) -> None:
        if self._shares and self._settings.sharing.role != "train":
            now = time.time()
            offered = self._published.new(own[: self._settings.sharing.publish], now)
            self._parts.exchange.listen(self._parts.rng, now)
            self._parts.exchange.publish(offered, round=self._progress.round, now=now)

    def _collect(self) -> list[Group]:
        """Peers' groups, scored by us beside the round: those that are done; pools what is useful.

        What came since the last round is mostly among them, and what is not comes in a later one.
        """
        parts, arrived = self._parts, []
        for arrival in parts.exchange.collect(round=self._progress.round, now=time.time()):
            if not parts.scoring.submit(arrival, arrival.question, arrival.rollout.texts):
                parts.exchange.refuse_unscored()
        for arrival, rewards in parts.scoring.finished():
            if rewards is None:
                self._progress.totals.scorer_failures += 1
                self._parts.exchange.refuse_unscorable(arrival, time.time())
                continue
            group = arrival.scored(rewards)
            self._parts.exchange.note_scored(group, time.time())
            arrived.append(group)
            if parts.mixing.is_useful(group):
                parts.pool.add(group)
        parts.defence.note_peers(arrived)
        self._progress.totals.accepted += len(arrived)
        return arrived

    def _choose_external(self) -> list[Group]:
        """Takes this round's groups from the pool and asks peers for the next round's."""
        sharing, parts, now = self._settings.sharing, self._parts, time.time()
        if not self._takes:
            return []
        parts.pool.expire(now, self._progress.round)
        chosen = parts.mixing.choose(parts.pool.groups(), parts.exchange.lag, parts.rng)
        parts.pool.take(chosen)
        wanted = sampling.fetch_count(
            parts.mixing.external,
            sharing.fetch_factor,
            len(parts.pool),
            parts.exchange.in_flight + parts.scoring.waiting,
        )
        parts.exchange.request(wanted, parts.rng, now)
        return chosen

    def _train(self, own: Sequence[Group], chosen: Sequence[Group]) -> StepReport:
        parts, hybrid = self._parts, self._settings.hybrid
        if self._settings.sharing.role == "rollout":
            return parts.trainer.step([])

        def advantages(task: str, rewards: Sequence[float]) -> Sequence[float]:
            rate = parts.mixing.ability.rate(task)
            return parts.defence.bounded(foreign_advantages(rewards, rate, hybrid))

        # The published rule stays as it is published.
        is_hybrid = self._settings.sharing.rule == "hybrid"
        samples = samples_of(
            [*own, *chosen],
            advantage=self._settings.train.advantage,
            encode_prompt=self._parts.prompts.encode,
            encode_text=self._parts.codec.encode,
            eos_id=self._parts.policy.eos_ids[0],
            max_completion_tokens=_LONGEST_EXTERNAL * self._settings.generate.max_new_tokens,
            foreign_advantages=advantages if is_hybrid else None,
            is_imitable=parts.defence.is_imitable if is_hybrid else lambda group, completion: True,
            verified=parts.defence.verified_marks if is_hybrid else None,
        )
        parts.rollback.note(chosen, parts.codec.encode)
        share = parts.mixing.foreign_share
        every = self._settings.sharing.gain_every
        is_measured = every > 0 and self._progress.round % every == 0
        step = parts.trainer.step(samples, share, is_measured=is_measured)
        if step.alignment is not None:
            parts.gain.note(step.alignment.own, step.alignment.peers)
        parts.generator.update(parts.trainer.policy_version)
        totals = self._progress.totals
        totals.tokens_trained_own += step.tokens_own
        totals.tokens_trained_external += step.tokens_external
        totals.own_groups_trained += sum(group.has_signal for group in own)
        totals.external_groups_trained += len(chosen)
        for group in chosen:
            assert group.origin is not None
            totals.note_trained_from(peer_id(group.origin.author))
        totals.rounds_without_step += step.optimizer_steps == 0
        return step

    def _score(self, question: Question, texts: Sequence[str]) -> tuple[float, ...] | None:
        """Our rewards, or None when the scorer died or hung on these texts (counted)."""
        try:
            return self._parts.scorer.score(question, texts)
        except ScoreFailed as error:
            self._progress.totals.scorer_failures += 1
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
            self._progress.totals,
        )
        totals.published = exchange.published
        totals.announced = exchange.announced
        totals.fetched = exchange.fetched
        totals.refused = {reason.value: count for reason, count in exchange.refused.items()}
        totals.missed = dict(exchange.missed)
        totals.dropped = dict(self._parts.defence.dropped)
        totals.bytes_in = self._bytes_before[0] + network.bytes_in
        totals.bytes_out = self._bytes_before[1] + network.bytes_out
        totals.wall_s += self._seconds["total"]
        return reporting.round_report(
            self._progress.round,
            time.time(),
            reporting.Groups(own, arrived, chosen),
            step,
            self._parts,
            network,
            dict(self._seconds),
            copy.deepcopy(totals),
            takes=self._takes,
        )

    def _record(self, report: RoundReport) -> None:
        self._directory.append(self._directory.rounds, report.as_dict())
        self._parts.metrics.record(report)
        every = self._settings.run.evaluate_every
        if every and self._progress.round % every == 0:
            self._evaluate()
        if self._checkpoints.is_due(self._progress.round):
            self._checkpoints.save(self._progress, self._parts)

    def _evaluate(self) -> None:
        """Held-out accuracy of the policy as it is; once per round at most."""
        progress, parts = self._progress, self._parts
        if progress.evaluated_round == progress.round:
            return
        count = self._settings.run.evaluate_questions
        evaluation = evaluate(parts.generator, parts.scorer, parts.tasks, count, progress.round)
        self._directory.append(self._directory.evaluations, evaluation.as_dict())
        parts.metrics.record_evaluation(evaluation)
        progress.evaluated_round = progress.round
        log.info(
            "evaluation round=%d held_out=%.3f constant_baseline=%.3f",
            progress.round, evaluation.mean_accuracy, evaluation.mean_constant_baseline,
        )  # fmt: skip

    def _probe(self) -> None:
        """Looks at the policy where that is due; goes back to the last good one if need be."""
        progress, parts = self._progress, self._parts
        if not self._takes or not parts.rollback.is_due(progress.round):
            return
        found = parts.rollback.look(parts, progress.round)
        if found is not None:
            rollbacks = progress.totals.rollbacks
            rollbacks[found.fault] = rollbacks.get(found.fault, 0) + 1

    def _write_run_files(self) -> None:
        self._directory.write("config.toml", config.dump(self._settings))
        self._directory.write(MANIFEST, manifest.dump(self._swarm))
        parts = self._parts
        record = environment(parts.seed, str(parts.policy.device), parts.threads)
        self._directory.write("environment.json", json.dumps(record, indent=2) + "\n")

    # --- the end, and time ---

    def _finish(self) -> None:
        """What a node does before it leaves: evaluate if its rounds are done, save, export."""
        if self._is_done():
            self._evaluate()
        self._checkpoints.save(self._progress, self._parts)
        save_policy(self._parts.policy, self._directory.path / "model")
        log.info("stop round=%d saved=%s", self._progress.round, self._directory.path)

    @property
    def _shares(self) -> bool:
        """Whether this node exchanges at all: it may train alone by choice."""
        return self._settings.sharing.rule != "off" and self._settings.network.backend != "off"

    @property
    def _takes(self) -> bool:
        """Whether this node asks peers for rollouts: a node that only generates does not."""
        return self._shares and self._settings.sharing.role != "rollout"

    def _is_done(self) -> bool:
        run = self._settings.run
        return 0 < run.rounds <= self._progress.round or deadline.is_past(run.until, time.time())

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - started
