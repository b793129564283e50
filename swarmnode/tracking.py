"""Other programs that are told of each round: TensorBoard and Weights & Biases, if asked for.

One small adapter each; neither library is needed otherwise. What they are told is what the run
directory holds. A tracker that fails is logged and dropped: it must not stop training.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

from swarmnode.errors import ConfigError
from swarmnode.report import RoundReport
from swarmnode.rows import newest_rows
from swarmnode.run_directory import RunDirectory

log = logging.getLogger(__name__)

# Figures of a round that are told as they are; what was not measured is left out.
_FIGURES = (
    "own_reward", "external_reward", "loss", "grad_norm", "kl", "kl_external", "entropy",
    "clip_fraction", "staleness_s", "staleness_rounds", "effective_ratio", "foreign_share",
    "sharing_gain", "pool_groups", "peers", "own_groups_with_signal", "external_groups_trained",
)  # fmt: skip
# Of the totals what is a number.
_TOTALS = (
    "own_groups_trained", "external_groups_trained", "tokens_generated", "bytes_in", "bytes_out",
    "rounds_failed",
)  # fmt: skip


class Sink(Protocol):
    """What takes figures by name at a round."""

    def write(self, figures: dict[str, float], round: int) -> None:
        """Takes them; must not wait."""
        ...

    def close(self) -> None:
        """Hands over what it holds."""
        ...


class Tracker:
    """Tells a sink of rounds and of evaluations as they appear in the run directory."""

    def __init__(self, sink: Sink | None, directory: RunDirectory) -> None:
        self._sink = sink
        self._directory = directory
        self._evaluated_round = -1

    def record(self, report: RoundReport) -> None:
        """Takes over one round and the newest evaluation, if it was not told yet."""
        if self._sink is None:
            return
        try:
            self._sink.write(figures_of(report), report.round)
            self._tell_evaluation(self._sink)
        except (OSError, RuntimeError, ValueError) as error:
            log.warning("tracker failed and is dropped error=%r", error)
            self._sink = None

    def close(self) -> None:
        """Tells of the last evaluation and closes. May be called twice."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            self._tell_evaluation(sink)
            sink.close()
        except (OSError, RuntimeError, ValueError) as error:
            log.warning("tracker failed error=%r", error)

    def _tell_evaluation(self, sink: Sink) -> None:
        for row in newest_rows(self._directory.evaluations, 1):
            if row["round"] != self._evaluated_round:
                self._evaluated_round = row["round"]
                told = {f"held_out/{task}": value for task, value in row["accuracy"].items()}
                told["held_out/mean"] = sum(told.values()) / len(told)
                sink.write(told, row["round"])


def require(name: str) -> None:
    """Raises `ConfigError` when the library of the tracker called `name` is not installed."""
    if name != "none" and find_spec(name) is None:
        raise ConfigError(f"--tracker {name} needs its library: pip install 'swarmnode[{name}]'")


def open_tracker(name: str, directory: RunDirectory, settings: dict[str, Any]) -> Tracker:
    """The tracker called `name` ("none", "tensorboard" or "wandb"), ready for rounds.

    `settings` is shown beside the curves where the program can. Its library is there (`require`).
    Raises `ConfigError` when wandb has no login.
    """
    makers: dict[str, Callable[[RunDirectory, dict[str, Any]], Sink]] = {
        "tensorboard": _tensorboard,
        "wandb": _wandb,
    }
    return Tracker(makers[name](directory, settings) if name in makers else None, directory)


def figures_of(report: RoundReport) -> dict[str, float]:
    """A round's figures by name, grouped as TensorBoard and wandb group them, by the first word."""
    figures = {
        f"round/{key}": value for key in _FIGURES if (value := getattr(report, key)) is not None
    }
    figures |= {f"total/{key}": getattr(report.totals, key) for key in _TOTALS}
    figures["total/refused"] = sum(report.totals.refused.values())
    figures["total/missed"] = sum(report.totals.missed.values())
    figures |= {f"seconds/{phase}": value for phase, value in report.seconds.items()}
    figures |= {f"task/{task}": value for task, value in report.own_reward_by_task.items()}
    return {name: float(value) for name, value in figures.items()}


class _TensorBoard:
    """Event files in `<run>/tensorboard`: `tensorboard --logdir <run>`."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, figures: dict[str, float], round: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, round)

    def close(self) -> None:
        self._writer.close()


def _tensorboard(directory: RunDirectory, settings: dict[str, Any]) -> Sink:
    from torch.utils.tensorboard import SummaryWriter

    newest = newest_rows(directory.rounds, 1)
    # Curves that a run had drawn before it was killed are cut off where it resumes.
    resumed = newest[0]["round"] + 1 if newest else None
    return _TensorBoard(SummaryWriter(str(directory.path / "tensorboard"), purge_step=resumed))


class _Wandb:
    """A run of Weights & Biases, whose own process talks to its server."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, figures: dict[str, float], round: int) -> None:
        self._run.log({**figures, "round": round})

    def close(self) -> None:
        self._run.finish()


def _wandb(directory: RunDirectory, settings: dict[str, Any]) -> Sink:
    import wandb

    from swarmnode.identity import load

    me = load(directory.identity)
    try:
        run = wandb.init(
            project="swarmnode",
            id=me.peer_id[-16:],  # the same run after a restart
            name=directory.path.name,
            dir=str(directory.path),
            config=settings,
            resume="allow",
        )
    except (wandb.Error, OSError) as error:
        raise ConfigError(
            f"--tracker wandb: {' '.join(str(error).split())[:200]}; log in with wandb login, or "
            "set WANDB_MODE=offline"
        ) from error
    run.define_metric("*", step_metric="round")
    return _Wandb(run)
