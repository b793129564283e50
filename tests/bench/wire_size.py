"""How large a rollout is on the wire, beside the same content as plain MessagePack maps.

    python tests/bench/wire_size.py [--json] [--groups recorded.jsonl]

Questions are real reasoning-gym ones; the G = 8 completions are made up, in the lengths that small
models give: the bare answer, the answer in a tag, and a few lines of reasoning before it. The
plain form is what a node sends that lets others neither make the question nor score it: question,
answer and metadata travel along, every field under its name.

Made-up reasoning repeats its few phrases more than a model does, and its numbers less.

`--groups` measures recorded completions: per line a JSON object with `texts`, and with `question`,
`answer` and `metadata` for the comparison with the plain form. SPEC.md's figures for reasoning are
from such a file, made from `example_model_solutions.jsonl` of github.com/openai/grade-school-math
(four models' solutions of each test question; `metadata` is empty).
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgpack

from protocol.codec import encode
from protocol.envelope import seal
from protocol.limits import HEADER_BYTES, MAX_COMPLETIONS
from protocol.messages import Rollout
from protocol.names import task_digest

TASKS = (
    "chain_sum",
    "spell_backward",
    "basic_arithmetic",
    "base_conversion",
    "fraction_simplification",
    "leg_counting",
    "countdown",
    "gsm_symbolic",
)
SWARM = bytes(32)
KEY = bytes(range(32))
CREATED = 1_780_000_000


@dataclass(frozen=True)
class Sizes:
    """Median bytes over the measured rollouts; ratios are medians of ratios."""

    source: str
    style: str
    texts: float
    uncompressed: float  # the frame if its body stays as it is
    frame: float  # as sent
    plain: float | None  # None where question, answer and metadata are not known
    frame_to_plain: float | None
    compressed_ratio: float  # how many of the frames travel compressed, 0 to 1
    largest_overhead: int  # most bytes of a frame beyond its texts, either way


@dataclass(frozen=True)
class Sample:
    """One rollout to measure. `entry` holds question, answer and metadata where they are known."""

    texts: tuple[str, ...]
    entry: dict[str, Any] | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--groups", type=Path, help="JSON lines, each a list of recorded texts")
    parser.add_argument("--questions", type=int, default=32, help="questions per task")
    arguments = parser.parse_args()
    rows = list(_rows(arguments.groups, arguments.questions))
    if arguments.json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return
    columns = ("texts", "uncompr.", "frame", "plain", "ratio", "compr.", "beyond")
    print(f"{'source':24}{'style':9}" + "".join(f"{column:>9}" for column in columns))
    for row in rows:
        ratio = "-" if row.frame_to_plain is None else f"{row.frame_to_plain:.2f}"
        counts = [_bytes(count) for count in (row.texts, row.uncompressed, row.frame, row.plain)]
        cells = [*counts, ratio, f"{row.compressed_ratio:.0%}", f"+{row.largest_overhead}"]
        print(f"{row.source:24}{row.style:9}" + "".join(f"{cell:>9}" for cell in cells))


def _bytes(count: float | None) -> str:
    return "-" if count is None else f"{count:.0f}"


def _rows(groups: Path | None, questions: int) -> Iterator[Sizes]:
    if groups is not None:
        recorded = map(json.loads, groups.read_text().splitlines())
        yield _measure(groups.stem, "recorded", [_recorded(group) for group in recorded])
        return
    for style in STYLES:
        for task in TASKS:
            yield _measure(task, style, list(_samples(task, style, questions)))


def _measure(source: str, style: str, samples: list[Sample]) -> Sizes:
    texts, uncompressed, frames, plains, ratios = [], [], [], [], []
    for sample in samples:
        rollout = _rollout(source, sample.texts)
        frames.append(len(seal(rollout, KEY, SWARM).frame))
        uncompressed.append(HEADER_BYTES + len(encode(rollout)))
        texts.append(sum(len(text.encode()) for text in sample.texts))
        if sample.entry is not None:
            plains.append(len(_plain(source, rollout, sample.entry)))
            ratios.append(frames[-1] / plains[-1])
    return Sizes(
        source,
        style,
        statistics.median(texts),
        statistics.median(uncompressed),
        statistics.median(frames),
        statistics.median(plains) if plains else None,
        statistics.median(ratios) if ratios else None,
        sum(map(int.__lt__, frames, uncompressed)) / len(frames),
        max(max(pair) - size for *pair, size in zip(frames, uncompressed, texts, strict=True)),
    )


def _rollout(source: str, texts: tuple[str, ...]) -> Rollout:
    return Rollout.build(
        task_digest=task_digest(source.encode()),
        seed=4711,
        created=CREATED,
        policy_version=1200,
        temperature=1.0,
        model_label="Qwen2.5-0.5B",
        texts=texts,
        mean_logps=[-0.731] * len(texts),
        token_counts=[max(1, len(text) // 4) for text in texts],
        ended=[True] * len(texts),
    )


def _plain(task: str, rollout: Rollout, entry: dict[str, Any]) -> bytes:
    """The same content, self-describing, with what the question needs to be scored elsewhere."""
    completions = [
        {"text": text, "mean_logp": mean_logp, "token_count": token_count, "ended": ended}
        for text, mean_logp, token_count, ended in zip(
            rollout.texts, rollout.mean_logps, rollout.token_counts, rollout.ended, strict=True
        )
    ]
    packed: bytes = msgpack.packb(
        {
            "version": 1,
            "author": bytes(32),
            "signature": bytes(64),
            "task": task,
            "seed": rollout.seed,
            "question": entry["question"],
            "answer": entry["answer"],
            "metadata": entry["metadata"],
            "created": float(rollout.created),
            "policy_version": rollout.policy_version,
            "temperature": rollout.temperature,
            "model": rollout.model_label,
            "completions": completions,
        },
        default=str,
    )
    return packed


def _recorded(group: dict[str, Any]) -> Sample:
    entry = group if "question" in group else None
    return Sample(tuple(group["texts"][:MAX_COMPLETIONS]), entry)


def _samples(task: str, style: str, questions: int) -> Iterator[Sample]:
    import reasoning_gym

    dataset = reasoning_gym.create_dataset(task, size=questions, seed=7)
    for index in range(questions):
        entry = dataset[index]
        rng = random.Random(index)
        answers = (_attempt(str(entry["answer"]), rng) for _ in range(MAX_COMPLETIONS))
        yield Sample(tuple(STYLES[style](answer, rng) for answer in answers), entry)


def _attempt(answer: str, rng: random.Random) -> str:
    """The right answer half of the time, else one with a character changed."""
    if rng.random() < 0.5:
        return answer
    at = rng.randrange(len(answer))
    return answer[:at] + rng.choice("0123456789") + answer[at + 1 :]


def _bare(answer: str, rng: random.Random) -> str:
    return answer


def _tag(answer: str, rng: random.Random) -> str:
    return f"<answer>{answer}</answer>"


def _reasoned(answer: str, rng: random.Random) -> str:
    starts = ("Let me work through this.", "First I look at what is asked.", "Step by step:")
    steps = (
        "I take {a} and {b}, which gives {c}.",
        "Then {c} stays, because {a} was already counted.",
        "Next, {b} out of {a} leaves {c}.",
        "Checking again: {a}, {b}, so {c}.",
    )
    lines = [rng.choice(starts)]
    for _ in range(rng.randint(3, 7)):
        a, b, c = (rng.randint(2, 999) for _ in range(3))
        lines.append(rng.choice(steps).format(a=a, b=b, c=c))
    return "\n".join([*lines, f"<answer>{answer}</answer>"])


STYLES: dict[str, Callable[[str, random.Random], str]] = {
    "bare": _bare,
    "tag": _tag,
    "reasoned": _reasoned,
}


if __name__ == "__main__":
    main()
