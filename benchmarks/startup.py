"""What a user waits for: ``scoresde --help`` and the README's main job, in processes of their own.

    python benchmarks/startup.py

Median and range of several runs, with the bare start of Python and the import of torch in the same run beside them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCORESDE = str(Path(sys.executable).with_name("scoresde"))
COMMANDS = {
    "python -c pass": ([sys.executable, "-c", "pass"], 10),
    "scoresde --help": ([SCORESDE, "--help"], 10),
    "python -c 'import torch'": ([sys.executable, "-c", "import torch"], 3),
    "scoresde sample --sampler ode --steps 10": ([SCORESDE, "sample", "--sampler", "ode", "--steps", "10"], 3),
}


def main() -> None:
    print("| command | median, s | range, s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (command, repeats) in COMMANDS.items():
            times: list[float] = []
            for _ in range(repeats):
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, cwd=folder)
                times.append(time.perf_counter() - start)
            print(f"| `{name}` | {statistics.median(times):.2f} | {min(times):.2f} to {max(times):.2f} |")


if __name__ == "__main__":
    main()
