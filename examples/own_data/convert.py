"""python convert.py questions.csv FOLDER: a table as the JSON lines that a node reads."""

import csv
import json
import sys
from pathlib import Path

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
with source.open(newline="", encoding="utf-8") as file:
    rows = [{"question": row["prompt"], "answer": row["solution"]} for row in csv.DictReader(file)]
(folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
(folder / "swarm.toml").write_text(Path(__file__).with_name("swarm.toml").read_text())
