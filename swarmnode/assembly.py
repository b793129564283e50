"""The parts of a node, made in the order in which they start.

tasks → identity → model → network → scorer → metrics → generator and trainer. What holds a process,
a port or a file is closed by the caller's `ExitStack`, also when a later part fails.
"""

import hashlib
import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from protocol.errors import Reason
from swarmnode import manifest
from swarmnode.breadth import Breadth
from swarmnode.config import Settings, corrected
from swarmnode.defending import REASONS, Defence
from swarmnode.errors import ConfigError
from swarmnode.evaluation import check_held_out
from swarmnode.failures import Cause
from swarmnode.gain import GainEstimate
from swarmnode.generate.choice import choose, has_vllm
from swarmnode.generate.encode import TextCodec, text_codec
from swarmnode.generate.engine_client import EngineProcess
from swarmnode.generate.generator import Generator
from swarmnode.generate.prompt import PromptEncoder, prompt_encoder
from swarmnode.generation import StartEngine, open_generator
from swarmnode.identity import Identity, load_or_create
from swarmnode.manifest import Manifest
from swarmnode.metrics import Metrics
from swarmnode.networking import ADDRESSES
from swarmnode.probing import FAULTS
from swarmnode.questions import open_tasks, swarm_id
from swarmnode.rolling_back import Rollback
from swarmnode.run_directory import MANIFEST, RunDirectory
from swarmnode.swarm.alone import Alone
from swarmnode.swarm.conversion import Arrival
from swarmnode.swarm.exchange import Exchange
from swarmnode.swarm.mixing import Mixing
from swarmnode.swarm.pool import Pool
from swarmnode.swarm.private import membership
from swarmnode.swarm.transport import FetchProblem, Transport
from swarmnode.tasks.answer import instruction
from swarmnode.tasks.scorer import Scorer
from swarmnode.tasks.scoring import TIME_LIMIT_S, Scoring
from swarmnode.tasks.taskset import TaskSet
from swarmnode.train import checkpoint
from swarmnode.train.frozen import Frozen
from swarmnode.train.policy import Policy
from swarmnode.train.policy import load as load_policy
from swarmnode.train.trainer import Trainer

log = logging.getLogger(__name__)

# In the run directory: where its metrics were when it last ran; empty if nowhere.
METRICS = "metrics.txt"

MakeTransport = Callable[[Identity, bytes, str], Transport]
"""(identity, swarm id, model label) → the network, not yet open."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Everything a node is made of, started. `task_names` maps task digests to names; `scorer`
    is for what this node wrote, `scoring` for what strangers did."""

    tasks: TaskSet
    task_names: Mapping[bytes, str]
    swarm_id: bytes
    identity: Identity
    policy: Policy
    transport: Transport
    exchange: Exchange
    pool: Pool
    mixing: Mixing
    defence: Defence
    rollback: Rollback
    gain: GainEstimate
    breadth: Breadth
    scorer: Scorer
    scoring: Scoring[Arrival]
    metrics: Metrics
    codec: TextCodec
    prompts: PromptEncoder
    generator: Generator
    trainer: Trainer | Frozen
    rng: random.Random
    seed: int
    threads: int


def assemble(
    settings: Settings,
    swarm: Manifest,
    directory: RunDirectory,
    make_transport: MakeTransport,
    closing: ExitStack,
    start_engine: StartEngine | None = None,
) -> Parts:
    """Starts every part. Raises `ConfigError` for what the user can mend, else `SwarmNodeError`.

    `start_engine` stands in for vLLM, whether that is installed or not.
    """
    threads = settings.run.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    tasks = open_tasks(swarm)
    task_names = {tasks.digest(name): name for name in tasks.names}
    swarm_hash = membership(settings.network.swarm_key, swarm_id(swarm, tasks))
    _check_same_swarm(directory, swarm.name, swarm_hash)
    check_held_out(tasks, settings.run.evaluate_questions)
    identity = load_or_create(directory.identity)
    seed = settings.run.seed or _seed_of(identity)
    torch.manual_seed(seed)
    policy = load_policy(settings.model)
    engine = choose(
        settings.generate, policy.device, has_vllm=start_engine is not None or has_vllm()
    )
    log.info("engine=%s because=%r", engine.name, engine.because)

    transport = make_transport(identity, swarm_hash, policy.label)
    closing.callback(transport.close)
    transport.open()
    is_offline = settings.network.backend == "off"
    _tell_addresses(() if is_offline else transport.status().addresses, directory)
    exchange = Exchange(
        transport,
        settings.sharing,
        swarm_id=swarm_hash,
        signing_key=identity.seed,
        public_key=identity.public_key,
        model_label=policy.label,
        tasks=task_names,
        audience=swarm.audience,
        rebuild=lambda digest, seed: tasks.question(task_names[digest], seed),
        trust=settings.trust,
    )
    scorer = Scorer(swarm.answer_format)
    closing.callback(scorer.close)
    scorer.open()
    scoring = Scoring[Arrival](Scorer(swarm.answer_format, TIME_LIMIT_S))
    closing.callback(scoring.close)
    scoring.open()
    codec = text_codec(policy.tokenizer)
    prompts = prompt_encoder(policy.tokenizer, codec, instruction(swarm.answer_format))
    sharing = settings.sharing
    foreign = settings.hybrid if sharing.rule == "hybrid" else None
    generator = open_generator(
        engine.name, policy, prompts, settings, seed, threads, start_engine or EngineProcess
    )
    closing.callback(generator.close)
    train = corrected(settings.train, is_same_program=engine.name == "hf")
    return Parts(
        tasks=tasks,
        task_names=task_names,
        swarm_id=swarm_hash,
        identity=identity,
        policy=policy,
        transport=transport,
        exchange=exchange,
        pool=Pool(
            sharing.pool_groups,
            sharing.max_age_s,
            sharing.max_wait_rounds,
            foreign.max_uses if foreign else 1,
        ),
        mixing=Mixing(sharing, settings.hybrid, settings.trust, settings.defence),
        defence=Defence(settings.defence, swarm.answer_format, codec.encode_spans),
        rollback=Rollback(settings.defence, directory.path / "good"),
        gain=GainEstimate(),
        breadth=Breadth(settings.generate.completions, settings.generate.most_completions),
        scorer=scorer,
        scoring=scoring,
        metrics=_open_metrics(settings, swarm, policy.label, engine.name, directory, closing),
        codec=codec,
        prompts=prompts,
        generator=generator,
        trainer=Frozen(policy.model)
        if sharing.role == "rollout"
        else Trainer(policy.model, train, policy.pad_id, settings.generate.temperature, foreign),
        rng=random.Random(seed),  # noqa: S311  draws of questions and rollouts
        seed=seed,
        threads=threads,
    )


def _check_same_swarm(directory: RunDirectory, name: str, swarm_hash: bytes) -> None:
    """Raises `ConfigError` for a run that began in another swarm: its weights, rows and totals are
    of other tasks."""
    state = checkpoint.peek(directory.checkpoints)
    began_in = swarm_hash.hex() if state is None else str(state["swarm_id"])
    if began_in != swarm_hash.hex():
        before = manifest.load(str(directory.path / MANIFEST)).name
        raise ConfigError(
            f"the run in {directory.path} began in swarm {before!r} ({began_in[:8]}) and this is "
            f"{name!r} ({swarm_hash.hex()[:8]}): give the --swarm and --swarm-key it began "
            f"with, or another --run"
        )


def _tell_addresses(given: Sequence[str], directory: RunDirectory) -> None:
    """Logs and writes down how others reach this node, the most useful address first."""
    addresses = sorted(given, key=lambda a: "/127.0.0.1/" in a)
    for address in addresses:
        log.info("listening address=%s", address)
    if addresses:
        log.info("others join with: swarmnode join --peer %s", addresses[0])
    else:
        log.info("offline: listening nowhere")
    directory.write(ADDRESSES, "".join(f"{address}\n" for address in addresses))


def _open_metrics(
    settings: Settings,
    swarm: Manifest,
    label: str,
    engine: str,
    directory: RunDirectory,
    closing: ExitStack,
) -> Metrics:
    known: dict[str, Sequence[str]] = {
        "rollouts_refused": [*Reason],
        "rollouts_missed": [*FetchProblem],
        "alone": [*Alone],
        "completions_dropped": REASONS,
        "rollbacks": FAULTS,
        "rounds_failed": [*Cause],
    }
    metrics = Metrics(settings.metrics.host, settings.metrics.port, known)
    metrics.watch_disk(directory.path)
    directory.write(METRICS, "")
    if settings.metrics.port >= 0:
        closing.callback(metrics.close)
        rule = settings.sharing.rule
        url = metrics.open(swarm=swarm.name, model=label, sharing=rule, engine=engine)
        log.info("metrics url=%s", url)
        directory.write(METRICS, f"{url}\n")
    return metrics


def _seed_of(identity: Identity) -> int:
    return int.from_bytes(hashlib.sha256(identity.public_key).digest()[:6], "big")
