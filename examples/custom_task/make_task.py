"""A task of one's own: Roman numerals. Writes the questions and the manifest of a swarm."""

import json
import random
import sys
from pathlib import Path

NUMERALS = {100: "C", 90: "XC", 50: "L", 40: "XL", 10: "X", 9: "IX", 5: "V", 4: "IV", 1: "I"}
MANIFEST = """name = "roman"
answer_format = "whole"

[[tasks]]
name = "roman"
source = "jsonl:roman.jsonl"
options = { compare = "integer" }
"""


def roman(number: int) -> str:
    text = ""
    for value, numeral in NUMERALS.items():
        text += numeral * (number // value)
        number %= value
    return text


folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
numbers = random.Random(1).sample(range(1, 200), 199)
rows = [{"question": f"{roman(n)} = ", "answer": str(n)} for n in numbers]
(folder / "roman.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
(folder / "swarm.toml").write_text(MANIFEST)
