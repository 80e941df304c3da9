"""Steps that do nothing but take their time, use worker processes and write as real ones do."""

from __future__ import annotations

from pathlib import Path

__all__ = ["patch"]

# Taken up by every Python of a run. `predictions` wants more memory than the campaign leaves to it.
_STEPS = """
import sys

def work(text):
    import hashlib, time

    time.sleep(0.05)
    return hashlib.sha256(text.encode()).hexdigest()

if "step" in sys.orig_argv:
    import json
    import mlclipsim.steps

    def function(step):
        def write(spec, inputs, outputs):
            from mlclipsim.atomic import atomic

            pieces = [f"{step} {number}" for number in range(8)]
            if step in ("pcmp_images", "baselines", "rate_task"):
                import joblib
                from mlclipsim.workers import worker_processes

                sums = list(worker_processes(spec["threads"])(joblib.delayed(work)(p) for p in pieces))
            else:
                sums = [work(piece) for piece in pieces]
            if step == "predictions":
                bytearray(b"x") * (2 << 30)
            for name, path in outputs.items():
                given = {"name": name, "spec": spec, "inputs": sorted(inputs), "sums": sums}
                text = json.dumps(given, sort_keys=True)
                with atomic(path) as temporary, temporary.open("w") as stream:
                    for start in range(0, len(text), 512):
                        stream.write(text[start : start + 512])
                        stream.flush()

        return write

    mlclipsim.steps.function = function
"""


def patch(folder: Path) -> Path:
    """Write the patch into a folder, which is to stand in ``$PYTHONPATH``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_STEPS)
    return folder
