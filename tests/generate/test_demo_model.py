"""The shipped model: its files, its tokenizer, and that it is a weak starter."""

import hashlib
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from protocol import names
from swarmnode import manifest
from swarmnode.config import ModelSettings
from swarmnode.generate.encode import text_codec
from swarmnode.generate.hf import HFGenerator
from swarmnode.generate.prompt import prompt_encoder
from swarmnode.tasks.taskset import TaskSet, TaskSpec
from swarmnode.train import policy

ROOT = Path(__file__).parents[2]
FOLDER = Path(str(resources.files("swarmnode") / "demo_model"))
EXAMPLE = ROOT / "examples" / "train_demo_model.py"


@pytest.fixture(scope="module")
def tasks() -> TaskSet:
    demo = manifest.load("demo")
    specs = [TaskSpec(task.name, task.source, task.options) for task in demo.tasks]
    tasks = TaskSet(specs, demo.held_out_ratio, demo.answer_format, names.task_digest)
    tasks.open()
    return tasks


def run(arguments: list[str], **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_files_stay_below_two_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_000_000


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_vocabulary_is_the_same_in_every_process(hash_seed, tmp_path):
    # An order that depends on the hash seed would permute the ids between two processes.
    program = (
        f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r})\n"
        f"import train_demo_model as t; t.build_tokenizer().save_pretrained({str(tmp_path)!r})"
    )
    run(["-c", program], PYTHONHASHSEED=hash_seed)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        built, shipped = (tmp_path / name).read_bytes(), (FOLDER / name).read_bytes()
        assert hashlib.sha256(built).hexdigest() == hashlib.sha256(shipped).hexdigest()


@pytest.mark.parametrize(
    "text",
    ["héllo 日本 🙂\r\n\t\0", "<0x41>", "<|end|>", "Calculate Calculate 1 to  to 2", "٣½ß\u200d"],
)
def test_any_text_survives_its_tokens(text):
    codec = text_codec(AutoTokenizer.from_pretrained(FOLDER))
    assert codec.decode(codec.encode(text)) == text


def test_questions_of_the_demo_swarm_are_short(tasks):
    prompts = prompt_encoder(
        tokenizer := AutoTokenizer.from_pretrained(FOLDER), text_codec(tokenizer)
    )
    for name in tasks.names:
        for seed in range(200):
            question = tasks.question(name, seed)
            # The longest are basic_arithmetic's nested signs: ( -( -( -1 ) ) ) …
            assert len(prompts.encode(question.prompt)) <= 64, question.prompt
            # Eight new tokens are what a demo node samples, EOS included.
            assert len(prompts.codec.encode(question.answer)) + 1 <= 8, question.answer


@pytest.mark.slow
def test_shipped_model_is_a_weak_starter(tasks):
    loaded = policy.load(ModelSettings(name="demo", device="cpu"))
    sampler = HFGenerator(
        loaded.model,
        prompt_encoder(loaded.tokenizer, text_codec(loaded.tokenizer)),
        loaded.eos_ids,
        max_new_tokens=8,
        temperature=1.0,
        seed=0,
    )
    rates = []
    for name in tasks.names:
        questions = [tasks.question(name, seed) for seed in range(2**31, 2**31 + 60)]
        asked = [question for question in questions if not question.held_out]
        right = [
            completion.text.strip() == question.answer
            for question, group in zip(asked, sampler.generate(asked, 8), strict=True)
            for completion in group
        ]
        rates.append(sum(right) / len(right))
    # Of about 3,000 samples, so ±.01: above nothing, and far below what it can learn.
    assert 0.04 < sum(rates) / len(rates) < 0.16


@pytest.mark.slow
def test_example_trains_a_model_that_loads(tmp_path):
    steps = ["--questions", "30", "--warm-steps", "2", "--blur-steps", "1"]
    printed = run([str(EXAMPLE), "--out", str(tmp_path), *steps])
    assert "blurred" in printed
    assert policy.load(ModelSettings(name=str(tmp_path), device="cpu")).eos_ids
