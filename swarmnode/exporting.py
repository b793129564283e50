"""What `swarmnode export` does: the model of a run as a folder that transformers loads, with a card
that says where it comes from; and, if told to, a push to the hub.

The weights are those of the newest valid checkpoint, or of the one that is asked for, in the dtype
in which they were trained. Nothing is published without `--push`.
"""

import json
import os
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from swarmnode import config, manifest
from swarmnode.config import ModelSettings, Settings
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.rows import newest_rows
from swarmnode.run_view import check_is_run, mean_accuracy, peers_trained_from

CARD = "README.md"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def run(
    run: Path, out: Path, round: int | None, push: str | None, *, public: bool, as_json: bool
) -> int:
    """Exports the run and says so; exit code 0.

    `round` chooses a checkpoint that is kept; None takes the newest. `push` is a hub repository,
    made if need be, private unless `public`. Raises `ConfigError` for what the user can mend and
    `SwarmNodeError` for disk and hub.
    """
    check_is_run(run)
    _check_is_free(out)
    if push is not None:
        _check_may_push(push)
    done = _export(run, out, round)
    if push is not None:
        done["pushed"] = _push(out, push, public=public)
    console = Console()
    if as_json:
        console.print_json(data=done)
    else:
        for line in (
            f"round {done['round']} of {run} is in {out}; in Python:",
            f"  AutoModelForCausalLM.from_pretrained({str(out)!r})",
            *([f"pushed to {done['pushed']}"] if push else []),
        ):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    return 0


def _check_is_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} exists: choose a new folder with --out (nothing is overwritten)")


def _export(run: Path, out: Path, round: int | None) -> dict[str, Any]:
    """Writes the folder beside `out` first, so that `out` is whole or absent."""
    from swarmnode.train.policy import load, save
    from swarmnode.train.weights import persistent_tensors

    settings = config.load(run / "config.toml", {})
    found = _checkpoint(run, round)
    policy = load(_model_settings(run, settings, found.model))
    needed = persistent_tensors(policy.model)  # of tied weights one, of adapters only these
    missing, unknown = policy.model.load_state_dict(dict(found.model), strict=False)
    if unknown:
        raise SwarmNodeError(f"the checkpoint is of another model: it holds {unknown[0]!r}")
    if lacking := sorted(set(needed) & set(missing)):
        raise SwarmNodeError(f"the checkpoint is of another model: it lacks {lacking[0]!r}")
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        save(policy, unfinished)
        (unfinished / CARD).write_text(card(run, settings, found.state, found.round), "utf-8")
        if out.exists():
            out.rmdir()
        os.replace(unfinished, out)
    except OSError as error:
        raise SwarmNodeError(f"cannot export to {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return {"out": str(out), "run": str(run), "round": found.round, "model": settings.model.name}


def _checkpoint(run: Path, round: int | None) -> Any:
    from swarmnode.train import checkpoint

    folder = run / "checkpoints"
    if round is not None:
        path = folder / f"round-{round:08d}"
        if not path.exists():
            kept = ", ".join(sorted(p.name for p in folder.glob("round-*"))) or "none"
            raise ConfigError(f"there is no checkpoint of round {round} in {folder}; kept: {kept}")
        return checkpoint.load(path)
    found = checkpoint.load_latest(folder).checkpoint
    if found is None:
        raise ConfigError(f"no valid checkpoint in {folder}: give a run that saved one")
    return found


def _model_settings(run: Path, settings: Settings, tensors: Any) -> ModelSettings:
    """Whence architecture and tokenizer come: what the run exported, or else what it began from.
    Adapters belong to what it began from: what it exported has them merged in."""
    import torch

    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    dtype = "bfloat16" if torch.bfloat16 in dtypes else "float32"
    exported = run / "model"
    has_exported = all((exported / name).exists() for name in ("config.json", "tokenizer.json"))
    flags = {"model": {"device": "cpu", "dtype": dtype}}
    if has_exported and not settings.model.lora_rank:
        flags["model"]["name"] = str(exported)
        settings = msgspec.structs.replace(
            settings, model=msgspec.structs.replace(settings.model, revision=None)
        )
    return config.load(None, {**flags}, settings).model


def card(run: Path, settings: Settings, state: Any, round: int) -> str:
    """The model card, Markdown with the hub's YAML head: what a stranger has to know."""
    swarm = manifest.load(str(run / "manifest.toml"))
    evaluations = [row for row in newest_rows(run / "evaluations.jsonl", 10_000)
                   if row["round"] <= round]  # fmt: skip
    totals = state["totals"]
    base = settings.model.name
    is_hub = base != "demo" and not Path(base).expanduser().exists()
    head = ["library_name: transformers", "pipeline_tag: text-generation"]
    head += [f"base_model: {json.dumps(base)}"] if is_hub else []
    head += ["tags:", "- swarmnode", "- reinforcement-learning", "- grpo", "- sapo"]
    tasks = ", ".join(f"`{task.name}`" for task in swarm.tasks)
    others = totals.get("trained_from_others", 0)  # older checkpoints name all
    lines = [
        "---", *head, "---", f"# {settings.model.label or Path(base).name}, trained in a swarm", "",
        f"`{base}` after {round:,} rounds ({state['policy_version']:,} optimiser steps) of GRPO in "
        f"the swarm `{swarm.name}` (`{state['swarm_id'][:16]}`), by swarmnode "
        f"{metadata.version('swarmnode')}. Its method is SAPO (arXiv 2509.08721): the node trained "
        "on its own answers and on those of peers that run other models.",
        "", "| what | figure |", "|---|---|",
        f"| sharing rule | {settings.sharing.rule} |",
        f"| objective, advantage | {settings.train.objective}, {settings.train.advantage} |",
        f"| own groups trained on | {totals['own_groups_trained']:,} |",
        f"| peers' groups trained on | {totals['external_groups_trained']:,} |",
        f"| peers they came from | {peers_trained_from(totals['trained_from'], others)} |",
        f"| tokens generated | {totals['tokens_generated']:,} |",
        f"| tasks | {tasks} |", "",
    ]  # fmt: skip
    if evaluations:
        first, last = evaluations[0], evaluations[-1]
        lines += [
            f"Held-out accuracy, greedy, at round {last['round']:,}; questions that were never "
            "trained on:", "",
            "| task | before | after | best constant answer |", "|---|---|---|---|",
            *(
                f"| {task} | {first['accuracy'].get(task, float('nan')):.3f} | {accuracy:.3f} "
                f"| {last['constant_baseline'][task]:.3f} |"
                for task, accuracy in last["accuracy"].items()
            ),
            f"| mean | {mean_accuracy(first):.3f} | {mean_accuracy(last):.3f} "
            f"| {mean_accuracy(last, 'constant_baseline'):.3f} |", "",
        ]  # fmt: skip
    lines += ["The licence is that of the model it began from. Rewards were checked by programs "
              "for these tasks alone: nothing is known of it elsewhere.", ""]  # fmt: skip
    return "\n".join(lines)


def _check_may_push(repository: str) -> None:
    from huggingface_hub import get_token

    if not _REPOSITORY.fullmatch(repository):
        raise ConfigError(f"--push {repository!r} is no repository name: give owner/name")
    if get_token() is None:
        raise ConfigError("--push needs a login of the hub: hf auth login, or HF_TOKEN")


def _push(folder: Path, repository: str, *, public: bool) -> str:
    """Uploads the folder; returns its address."""
    from huggingface_hub import HfApi, errors

    try:
        api = HfApi()
        address = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository)
    except (errors.HfHubHTTPError, errors.HTTPError, OSError, ValueError) as error:  # type: ignore[attr-defined]  # of its HTTP library, whichever
        reason = " ".join(str(error).split())[:300]
        raise SwarmNodeError(
            f"cannot push to {repository}: {reason}; the export in {folder} is whole"
        ) from error
    return str(address)
