"""Stands for the engine process: its frames, without vLLM. Called with a way to behave, then with
the four numbers that every engine process gets.

It answers with what it read from shared memory: [sum of the bytes of the weights, seed].
"""

import json
import mmap
import os
import subprocess
import sys
import time

from swarmnode.generate.engine_process import frame_of, read_frame

WIDTHS = {"float32": 4, "bfloat16": 2, "int64": 8}


def main() -> None:
    way, requests, replies, memory, _parent = sys.argv[1], *map(int, sys.argv[2:])
    reader, writer = os.fdopen(requests, "rb"), os.fdopen(replies, "wb", 0)
    if way == "child":  # something of its own that must not outlive it
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    total, names = 0, []
    while (request := read_frame(reader)) is not None:
        done = None
        match request["do"]:
            case "begin":
                total, names = 0, []
            case "weights":
                shared = mmap.mmap(memory, 0)
                for name, kind, shape, offset in request["tensors"]:
                    size = WIDTHS[kind]
                    for length in shape:
                        size *= length
                    total += sum(shared[offset : offset + size])
                    names.append([name, kind, shape])
            case "answer":
                misbehave(way, writer)
                done = [[[total, len(names), one[1]], [-1.0] * 3] for one in request["requests"]]
                done = done[1:] if way == "short" else done
            case "start" if way == "refuses":
                writer.write(frame_of({"error": "ValueError: head size 24 is not supported"}))
                continue
        writer.write(frame_of({"done": done}))


def misbehave(way: str, writer) -> None:
    if way == "dies":
        sys.stderr.write("Segmentation fault, as it were\n")
        sys.stderr.flush()
        os._exit(3)
    if way == "hangs":
        time.sleep(600)
    if way == "slow":
        for left in range(8):
            writer.write(frame_of({"alive": left}))
    if way == "garbage":
        writer.write(b"\0\0\0\2}}")
    if way == "huge":
        writer.write(b"\xff\xff\xff\xff")
    if way == "words":
        writer.write(frame_of({"done": [["a", "b"]]}))
    if way == "halves":
        payload = json.dumps({"done": [[[1], [-1.0]]]}).encode()
        writer.write(len(payload).to_bytes(4, "big") + payload[:5])
        os._exit(0)


main()
