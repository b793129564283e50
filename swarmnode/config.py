"""Every setting of a node, with its default and unit, in one frozen tree.

Read from a TOML file and from flags (`load`); an unknown key, a wrong type or a value out of
bounds is a `ConfigError`. What all nodes of a swarm must share is not here but in `manifest.py`.
"""

import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, inspect

from protocol.limits import MAX_LABEL_BYTES
from swarmnode.errors import ConfigError
from swarmnode.unknown_fields import known_fields

Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]
# A description is what an error says instead of the pattern.
Label = Annotated[
    str,
    Meta(
        max_length=MAX_LABEL_BYTES,
        pattern=r"^[\x20-\x7e]*\Z",
        description=f"at most {MAX_LABEL_BYTES} printable ASCII characters",
    ),
]
Device = Annotated[
    str,
    Meta(
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)\Z",
        description="auto, cpu, cuda or cuda:<number>",
    ),
]
Moment = Annotated[
    str,
    Meta(
        pattern=r"^(\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d))?\Z",
        description="a time with its zone, such as 2026-12-01T18:00:00+00:00",
    ),
]


# The flags that are not called as their key.
_FLAGS = {
    "metrics.port": "--metrics-port",
    "model.name": "--model",
    "network.peers": "--peer",
    "sharing.rule": "--sharing",
}


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of the settings file."""


class ModelSettings(Section, frozen=True):
    """Which policy is trained. `name` is a hub name, a folder, or "demo" (shipped inside)."""

    name: str = "demo"
    revision: str | None = None  # hub commit, tag or branch; None: the hub's default branch
    label: Label = ""  # what peers see, printable ASCII; empty: derived from the name
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on GPU, else float32
    device: Device = "auto"  # auto: cuda when there is one, else cpu
    # Above 0 adapters of this rank are trained and the weights are not; needs the extra `lora`.
    lora_rank: Annotated[int, Meta(ge=0, le=1024)] = 0
    lora_alpha: PositiveFloat = 32.0  # what they add is multiplied by alpha / rank


class GenerateSettings(Section, frozen=True):
    """How the node answers questions."""

    questions: Positive = 4  # own questions per round (I of SAPO)
    completions: Annotated[int, Meta(ge=2, le=64)] = 8  # G, completions of one question
    # G doubles up to this many while few groups have a signal (`breadth.py`); 0: it stays.
    most_completions: Annotated[int, Meta(ge=0, le=512)] = 0
    max_new_tokens: Annotated[int, Meta(ge=1, le=32768)] = 256
    temperature: Annotated[float, Meta(gt=0, le=10)] = 1.0
    # What generates. auto: vLLM where it is installed and the model is on a GPU, else transformers.
    engine: Literal["auto", "hf", "vllm"] = "auto"
    # The following are for vLLM. auto: another GPU than the trainer's, if there is one.
    engine_device: Device = "auto"
    # Share of its GPU's memory; None: 0.9, or 0.35 where the trainer is on the same.
    engine_memory: Annotated[float, Meta(gt=0, lt=1)] | None = None
    engine_silence_s: PositiveFloat = 300.0  # without a sign of life, after which it is restarted
    engine_failures: NonNegative = 3  # in a row that are survived; then transformers takes over
    overlap: bool = False  # generate for the next round while this one's step is computed


class SharingSettings(Section, frozen=True):
    """What is exchanged with the swarm and how much of it is trained on."""

    rule: Literal["hybrid", "sapo", "off"] = "hybrid"
    # rollout: generate and publish, never train. train: train and take, publish nothing.
    role: Literal["both", "train", "rollout"] = "both"
    # Peers' groups per round (J of SAPO); fewer where fewer are fresh. What hybrid makes of it:
    # `HybridSettings`.
    external: NonNegative = 4
    publish: Positive = 16  # own groups offered to peers per round, at most
    fetch_factor: Positive = 2  # fetched per wanted group: some will have zero advantage
    pool_groups: Positive = 256  # admitted peers' groups kept for sampling; the oldest is dropped
    # An older rollout is refused, an older pooled group dropped. Longer than the slowest honest
    # round, since what came during a round is only looked at after it.
    max_age_s: PositiveFloat = 3600.0
    max_wait_rounds: NonNegative = 5  # own rounds a pooled group may wait before it is dropped
    keep_announcements: Positive = 2  # newest announcements of one peer that are fetched from
    gain_every: NonNegative = 1  # rounds between measurements of what peers give; 0: never


class HybridSettings(Section, frozen=True):
    """The parts of `sharing.rule = "hybrid"`, each with its switch: which of peers' groups are
    trained on (`swarm/mixing.py`) and how they enter the loss (`train/foreign.py`)."""

    # Which groups.
    rescue_below: Annotated[float, Meta(ge=0, le=1)] = 0.5  # own rate at the task; 0: no rescue
    own_tasks_only: bool = True
    priority: Literal["uniform", "balance", "headroom"] = "uniform"
    # J may grow to this many times sharing.external where so many are useful.
    stretch: Annotated[float, Meta(ge=1)] = 3.0
    # Own questions take the place of peers' groups below this many times sharing.external.
    fill: NonNegativeFloat = 2.0
    paired: NonNegative = 0  # of the own questions in a round
    max_uses: Positive = 1
    max_lag: NonNegative = 16  # policy versions of the author since it answered
    guard: bool = True
    # How they enter the loss.
    # What is imitated of a peer's text outside its verified answer: all, nothing, or what this
    # node might have written itself (`train/unverified.py`).
    unverified: Literal["all", "likely", "none"] = "likely"
    least_probability: Annotated[float, Meta(gt=0, lt=1)] = 0.02  # of a token that is likely
    negatives: Literal["drop", "taper", "keep"] = "drop"
    advantage: Literal["mean_std", "mean", "maxrl"] = "mean_std"
    margin: NonNegativeFloat = 0.3  # the baseline lies this far below the group's mean reward
    own_baseline: bool = True  # and not above this node's own rate at the task
    max_gap: NonNegativeFloat = 5.0  # nats per token from the sampler; more is masked; 0: no bound
    scaling: bool = False  # weight by how likely the completion is here (HACPO)
    shaping: NonNegativeFloat = 0.0  # γ of LUFFY's p / (p + γ); 0: log p
    normaliser: Literal["separate", "joint"] = "joint"
    weight: NonNegativeFloat = 1.0  # λ, of peers' part of the loss


class DefenceSettings(Section, frozen=True):
    """What keeps peers' text from teaching more than its verified answer (`defending.py`). Each
    part has its switch; none asks a model to judge. What is masked or dropped is counted."""

    equations: bool = True  # drop completions with a false equation (`tasks/equations.py`)
    novelty: bool = True  # drop those with phrases that recur in peers' text only
    # Drop those whose text around the answer is longer than this many times what nineteen of twenty
    # own answers to the task stay below; 0: no bound.
    max_length: NonNegativeFloat = 1.25
    max_advantage: NonNegativeFloat = 4.0  # of a peer's completion; 0: no bound
    # Of a round's peers' groups, unless there are too few authors for that; 1: no limit.
    author_share: Annotated[float, Meta(gt=0, le=1)] = 0.34
    per_question: NonNegative = 1  # peers' groups on one question in a round; 0: no limit
    # Rounds between looks at the probe, fixed held-out questions (`probing.py`); 0: never.
    probe_every: NonNegative = 0
    probe_questions: Positive = 32  # in all


class TrustSettings(Section, frozen=True):
    """What strangers may use and what is held against them, each part with its switch: `swarm/`
    `quota.py`, `standing.py`, `numbers.py`, `copies.py`, `visible.py`."""

    quotas: bool = True  # budgets of announcements and offers, per author, network, newcomers
    fair_shares: bool = True  # networks are drawn before authors, and authors before rollouts
    authors_per_network: Positive = 1  # as many as a /24 or /48 counts for in a draw, at most
    # What newcomers get of a draw, and after how many rounds that took something right of one it is
    # none any more; 0 rounds: there are no newcomers. The share holds from so many rounds after the
    # first author was none: at the start everybody is new.
    newcomer_share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    newcomer_rounds: NonNegative = 3
    newcomer_grace: NonNegative = 20
    standing: bool = True  # who lied too often is disconnected and avoided
    max_offences: PositiveFloat = 10.0  # points, of those in `swarm/standing.py`
    offence_half_life_s: PositiveFloat = 3600.0
    avoid_s: PositiveFloat = 1800.0
    max_authors: Positive = 4096  # remembered, each about 1 KB
    numbers: bool = True  # no question is answered twice, nor far from an author's others
    copies: bool = True  # texts that were taken of another are refused
    visible: bool = True  # characters that nobody sees are taken out of peers' texts


class TrainSettings(Section, frozen=True):
    """One optimiser step per round. The formulas are in `train/objectives/` and `train/loss.py`."""

    lr: PositiveFloat = 1e-6
    beta1: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Meta(ge=0, lt=1)] = 0.95
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    objective: Literal[
        "dapo", "dr_grpo", "gspo", "cispo", "dppo_tv", "soft_gate", "topr", "decoupled"
    ] = "dapo"
    advantage: Literal["mean_std", "mean", "leave_one_out", "maxrl"] = "mean_std"
    # λ of L = L_own + λ L_peers', each over its own tokens; None: one mean over all (SAPO).
    external_weight: NonNegativeFloat | None = None
    # adamw8bit: moments of 8 bits, 2 bytes per parameter instead of 8; needs the extra `eight-bit`.
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    # Matrix products of the step in bfloat16, weights and moments staying as they are. auto: on a
    # GPU that computes in it.
    autocast: Literal["auto", "bfloat16", "off"] = "auto"
    epochs: Positive = 1  # optimiser steps on one batch
    micro_batch_tokens: Positive = 16384  # padded tokens per forward and backward
    # Bounds of the objectives, each read by those named.
    clip_low: Annotated[float, Meta(gt=0, lt=1)] = 0.2  # dapo, dr_grpo, decoupled: ratio ≥ 1 − it
    clip_high: PositiveFloat = 0.28  # the same three: ratio ≤ 1 + it
    gspo_clip_low: Annotated[float, Meta(gt=0, lt=1)] = 3e-4  # of a completion's mean ratio
    gspo_clip_high: PositiveFloat = 4e-4
    length_tokens: Positive = 256  # dr_grpo's constant: set it to generate.max_new_tokens
    cispo_max_weight: PositiveFloat = 5.0
    dppo_threshold: Annotated[float, Meta(gt=0, le=1)] = 0.2  # change of a token's probability
    gate_positive: PositiveFloat = 1.0  # soft_gate's steepness for A > 0
    gate_negative: PositiveFloat = 1.05  # and for A ≤ 0
    decoupled_max_weight: PositiveFloat = 5.0
    # C of min(π / μ, C) on own tokens that another engine than transformers sampled; 0: no weight.
    engine_max_weight: NonNegativeFloat | None = None  # None: 2 with vLLM
    # Guards. StableReinforce: 6.9 (ln 1000) and 3.
    max_log_ratio: Annotated[float, Meta(gt=0, le=80)] = 20.0  # nats; e^88 overflows float32
    max_advantage_sigmas: NonNegativeFloat = 0.0  # 0: no filter
    # KL to the weights at the start of the run; above 0 a second copy of the model is kept.
    kl_weight: NonNegativeFloat = 0.0
    # EPO, on own tokens: a bonus for entropy, and a corridor around its mean over past steps.
    entropy_bonus: NonNegativeFloat = 0.0
    entropy_corridor: NonNegativeFloat = 0.0  # weight of what lies outside
    entropy_low: NonNegativeFloat = 0.8  # corridor from this share of the mean
    entropy_high: PositiveFloat = 1.2  # to this one
    entropy_window: Positive = 100  # steps in the mean


# C of truncated importance sampling where another program than the trainer's samples.
_ENGINE_MAX_WEIGHT = 2.0

# Read by `swarm.budget`, which says what it means.
Rate = Annotated[
    str,
    Meta(
        pattern=r"^([0-9]{1,9}(\.[0-9]{1,3})? ?(B|kB|MB|GB|KiB|MiB|GiB)(/s|/h)?)?\Z",
        description="like 500kB (a second) or 2GB/h (an hour), or empty for no limit",
    ),
]


class NetworkSettings(Section, frozen=True):
    """How peers are reached. Addresses are libp2p multiaddresses that end in /p2p/<peer id>."""

    # auto: hivemind's Go daemon where it runs, else libp2p (pure Python). A swarm may mix both.
    backend: Literal["auto", "hivemind", "libp2p", "off"] = "auto"
    host: str = "0.0.0.0"  # noqa: S104  peers on other machines must reach a node that joined
    port: Port = 0  # 0: any free port
    peers: tuple[str, ...] = ()
    lan_only: bool = False  # listen, dial and announce on private networks only
    # Ask the local network for peers. auto: unless the node listens on loopback only.
    mdns: Literal["auto", "on", "off"] = "auto"
    # File of a private swarm's pre-shared key; "": the swarm is open to whoever has its manifest.
    swarm_key: str = ""
    # What peers are told instead of the addresses this machine has, without /p2p/: of a router
    # that forwards a port, of a container's host.
    announce: tuple[str, ...] = ()
    upnp: bool = False  # ask the router to forward the port; hivemind only
    # What rollouts and announcements may take; what GossipSub passes on for others is not in it.
    max_upload: Rate = ""
    max_download: Rate = ""


class RunSettings(Section, frozen=True):
    """Where a run lives and how long it lasts."""

    rounds: NonNegative = 0  # 0: until stopped
    until: Moment = ""  # when to stop, whatever `rounds` says; empty: never
    seed: NonNegative = 0  # 0: derived from the identity, so that no two nodes draw alike
    min_round_s: NonNegativeFloat = 0.0  # a quicker round rests until then: spares a shared machine
    threads: NonNegative = 0  # torch threads; 0: all cores for one node
    checkpoint_every: NonNegative = 0  # rounds; 0: as often as costs at most 5 % of the time
    keep_checkpoints: Positive = 2
    evaluate_every: NonNegative = 0  # rounds between held-out evaluations; 0: first and last only
    evaluate_questions: Positive = 32  # held-out questions per task
    max_failed_rounds: Positive = 5  # environment failures in a row before the node gives up
    tracker: Literal["none", "tensorboard", "wandb"] = "none"  # who is told of each round, too
    log_mb: Positive = 20  # of node.log, after which it becomes node.log.1 and so on
    keep_logs: Positive = 3  # such older files kept


class MetricsSettings(Section, frozen=True):
    """The Prometheus exporter. Loopback unless told otherwise."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=-1, le=65535)] = 0  # 0: any free port; -1: no exporter


class Settings(Section, frozen=True):
    """The whole tree, as it is written to `config.toml` in the run directory."""

    swarm: str = ""  # manifest: a built-in name or a file; empty: chosen by the model
    model: ModelSettings = ModelSettings()
    generate: GenerateSettings = GenerateSettings()
    sharing: SharingSettings = SharingSettings()
    hybrid: HybridSettings = HybridSettings()
    defence: DefenceSettings = DefenceSettings()
    trust: TrustSettings = TrustSettings()
    train: TrainSettings = TrainSettings()
    network: NetworkSettings = NetworkSettings()
    run: RunSettings = RunSettings()
    metrics: MetricsSettings = MetricsSettings()


def corrected(train: TrainSettings, *, is_same_program: bool) -> TrainSettings:
    """`train` with the weight of own tokens in force: none where transformers samples, too."""
    given = train.engine_max_weight
    weight = 0.0 if is_same_program else _ENGINE_MAX_WEIGHT if given is None else given
    return msgspec.structs.replace(train, engine_max_weight=weight)


def preset(model_name: str) -> Settings:
    """The defaults for this model: the shipped demo model wants other ones than a large model."""
    if model_name != "demo":
        return Settings()
    file = resources.files("swarmnode") / "presets" / "demo.toml"
    return msgspec.toml.decode(file.read_bytes(), type=Settings)


def load(
    path: Path | None, flags: dict[str, dict[str, Any]], base: Settings | None = None
) -> Settings:
    """The settings in force: `base` (or the defaults), overlaid by the file, then by the flags.

    `flags` maps section → key → value ("" is the top level); a value of None means "not given".
    Raises `ConfigError` that names the flag as it is typed, or the file and the key in it.
    """
    settings = base or Settings()
    if path is not None:
        settings = _changed(settings, _read_toml(path), lambda key: f"`{key}`", f"{path}: ")
    given = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in flags.items()
    }
    return _changed(settings, given.pop("", {}) | given, flag)


def flag(key: str) -> str:
    """What the command line calls the setting `key`.

    >>> flag("train.lr"), flag("run.min_round_s"), flag("sharing.rule")
    ('--lr', '--min-round-s', '--sharing')
    """
    return _FLAGS.get(key) or "--" + key.rpartition(".")[2].replace("_", "-")


def dump(settings: Settings) -> str:
    """The settings as TOML text that `load` reads back to an equal tree."""
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    for section in tree.values():
        if isinstance(section, dict):
            for key in [k for k, v in section.items() if v is None]:
                del section[key]
    return msgspec.toml.encode(tree).decode()


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _changed(
    settings: Settings, changes: dict[str, Any], name: Callable[[str], str], source: str = ""
) -> Settings:
    """The settings with `changes` laid over them. In the message of an error `source` comes first
    and `name` is what the user calls a key."""
    tree = msgspec.to_builtins(settings)
    _overlay(tree, changes)
    try:
        return msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}{_problem(error, tree, name)}") from error


def _overlay(tree: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _overlay(tree[key], value)
        else:
            tree[key] = value


def _problem(
    error: msgspec.ValidationError, tree: dict[str, Any], name: Callable[[str], str]
) -> str:
    """What is wrong, what is allowed and what was given, as far as msgspec's message tells."""
    plain = str(error).replace("`$.", "`").replace(" - at `$`", "")
    if unknown := known_fields(str(error), Settings):
        return f"{plain}; known there: {unknown}"
    found = re.search(r"at `\$\.([a-z0-9_.]+)`", str(error))
    if found is None:
        return plain
    kind: Any = inspect.type_info(Settings)
    value: Any = tree
    for part in found[1].split("."):
        kind = next(field.type for field in kind.fields if field.name == part)
        value = value[part]
    if type(value) is dict:
        return plain
    allowed = _allowed(kind)
    return f"{name(found[1])} must be {allowed}, not {value!r}" if allowed else plain


def _allowed(kind: inspect.Type) -> str:
    """What a setting of this type may be, in words; "" for what is no single value."""
    match kind:
        case inspect.Metadata(extra_json_schema={"description": str(words)}):
            return words
        case inspect.UnionType(types):
            return " or ".join(filter(None, map(_allowed, types)))
        case inspect.LiteralType(values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.StrType():
            return "text"
        case inspect.IntType() | inspect.FloatType():
            bounds = (("≥", kind.ge), (">", kind.gt), ("≤", kind.le), ("<", kind.lt))
            texts = [f"{sign} {bound:g}" for sign, bound in bounds if bound is not None]
            number = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
            return f"{number} {' and '.join(texts)}".strip()
    return ""
