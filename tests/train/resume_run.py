"""python resume_run.py FOLDER first|second: the two halves of the resume test.

first: six rounds without a stop into FOLDER/straight, and three rounds into FOLDER/resumed.
second, in a process of its own: continues FOLDER/resumed to round six.
"""

import random
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from swarmnode.config import TrainSettings
from swarmnode.train.batch import Sample
from swarmnode.train.checkpoint import Checkpoint, load_latest, restore_rng, rng_state, save
from swarmnode.train.trainer import Trainer, TrainerState

VOCABULARY = 40


class Run:
    """A node without a network: samples drawn from three generators, trained on, saved."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            tie_word_embeddings=True,
        )
        settings = TrainSettings(lr=1e-3, weight_decay=0.01, epochs=2, micro_batch_tokens=64)
        self.folder = folder
        self.trainer = Trainer(LlamaForCausalLM(config), settings, pad_token_id=0)
        self.rng = random.Random(2)
        self.generator = torch.Generator().manual_seed(3)
        self.round = 0

    def train_until(self, last: int) -> None:
        while self.round < last:
            self.round += 1
            self.trainer.step([self._draw_sample() for _ in range(8)])

    def save(self) -> None:
        state = self.trainer.state()
        rng = rng_state({"node": self.rng}, {"sampler": self.generator})
        node = {"policy_version": state.policy_version, "rng": rng}
        save(self.folder, Checkpoint(self.round, state.model, state.optimizer, node), keep=2)

    def resume(self) -> None:
        found = load_latest(self.folder).checkpoint
        assert found is not None
        version = found.state["policy_version"]
        self.trainer.load_state(TrainerState(found.model, found.optimizer, version))
        restore_rng(found.state["rng"], {"node": self.rng}, {"sampler": self.generator})
        self.round = found.round

    def _draw_sample(self) -> Sample:
        prompt = tuple(torch.randint(VOCABULARY, (5,), generator=self.generator).tolist())
        completion = tuple(torch.randint(VOCABULARY, (self.rng.randint(1, 9),)).tolist())
        return Sample(prompt, completion, self.rng.gauss(0, 1), external=False)


def main(folder: Path, part: str) -> None:
    torch.set_num_threads(1)
    if part == "first":
        straight = Run(folder / "straight")
        straight.train_until(6)
        straight.save()
    run = Run(folder / "resumed")
    if part == "second":
        run.resume()
    run.train_until(3 if part == "first" else 6)
    run.save()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
