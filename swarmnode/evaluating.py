"""What `swarmnode eval` does: held-out accuracy of a run, a checkpoint, a folder or a hub model."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from swarmnode import config, manifest
from swarmnode.config import Settings
from swarmnode.errors import ConfigError
from swarmnode.joining import default_swarm
from swarmnode.report import Evaluation


def run(target: str, swarm: str | None, questions: int, device: str, *, as_json: bool) -> int:
    """Prints accuracy by task; exit code 0. Raises `ConfigError` for an unusable target."""
    settings, weights = _resolve(target, device)
    found = swarm or settings.swarm or default_swarm(settings.model.name)
    evaluation = _evaluate(settings, weights, manifest.load(found), questions)
    console = Console()
    if as_json:
        shown: dict[str, Any] = {"target": target, "swarm": found, **evaluation.as_dict()}
        shown["mean_accuracy"] = evaluation.mean_accuracy
        shown["mean_constant_baseline"] = evaluation.mean_constant_baseline
        console.print_json(data=shown)
        return 0
    table = Table("task", "accuracy", "best constant", title=f"{target} on held-out questions")
    for task, accuracy in evaluation.accuracy.items():
        table.add_row(task, f"{accuracy:.3f}", f"{evaluation.constant_baseline[task]:.3f}")
    table.add_section()
    mean, baseline = evaluation.mean_accuracy, evaluation.mean_constant_baseline
    table.add_row("mean", f"{mean:.3f}", f"{baseline:.3f}")
    console.print(table)
    return 0


def _resolve(target: str, device: str) -> tuple[Settings, Path | None]:
    """The settings to load the model by, and the folder whose checkpoint replaces its weights."""
    path = Path(target)
    if nodes := [str(node) for node in path.glob("node-*") if node.is_dir()]:
        listed = ", ".join(sorted(nodes, key=lambda name: (len(name), name)))
        raise ConfigError(f"{target} holds the nodes of a demo: give one of them, {listed}")
    if path.name.startswith("round-") and (path / "MANIFEST.json").exists():
        run, checkpoint = path.parent.parent, path
    elif (path / "checkpoints").is_dir():
        run, checkpoint = path, path / "checkpoints"
    elif (path / "config.json").exists() and (path.parent / "config.toml").exists():
        # The model that a run exported: the run says which swarm and settings it was trained in.
        flags: dict[str, dict[str, Any]] = {"model": {"name": target, "device": device}}
        trained = config.load(path.parent / "config.toml", {})
        flags[""] = {"swarm": trained.swarm or default_swarm(trained.model.name)}
        return config.load(None, flags, trained), None
    else:
        flags = {"model": {"name": target, "device": device}}
        return config.load(None, flags, config.preset(target)), None
    saved = config.load(run / "config.toml", {"model": {"device": device}})
    return saved, checkpoint


def _evaluate(
    settings: Settings, weights: Path | None, swarm: manifest.Manifest, questions: int
) -> Evaluation:
    from swarmnode.evaluation import check_held_out, evaluate
    from swarmnode.generate.encode import text_codec
    from swarmnode.generate.prompt import prompt_encoder
    from swarmnode.generation import make_generator
    from swarmnode.questions import open_tasks
    from swarmnode.tasks.answer import instruction
    from swarmnode.tasks.scorer import Scorer
    from swarmnode.train.policy import load as load_policy

    tasks = open_tasks(swarm)
    check_held_out(tasks, questions)
    policy = load_policy(settings.model)
    round = _load_weights(policy.model, weights) if weights else 0
    prompts = prompt_encoder(
        policy.tokenizer, text_codec(policy.tokenizer), instruction(swarm.answer_format)
    )
    generator = make_generator(policy, prompts, settings, seed=0)
    scorer = Scorer(swarm.answer_format)
    scorer.open()
    try:
        return evaluate(generator, scorer, tasks, questions, round)
    finally:
        scorer.close()


def _load_weights(model: Any, path: Path) -> int:
    """Puts the weights of a checkpoint, or of the newest in a folder, in; returns its round."""
    from swarmnode.train import checkpoint

    if path.name.startswith("round-"):
        found: checkpoint.Checkpoint | None = checkpoint.load(path)
    else:
        found = checkpoint.load_latest(path).checkpoint
    if found is None:
        raise ConfigError(f"no valid checkpoint in {path}: give another run, or a model folder")
    # Not strict: of tied weights a checkpoint holds one.
    model.load_state_dict(dict(found.model), strict=False)
    return found.round
