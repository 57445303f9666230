"""Half a boot, painted five ways.

    python examples/inpaint.py

The shipped model draws a boot; its right half, the heel, is hidden, and each way fills it in again three times:

    replacement, ddim      x̂_0 is what is known, where it is known; the probability flow of the rest
    replacement, ddpm      the same along the ancestral chain
    replacement, dpm++2m   the same in few steps of second order: every sampler takes it
    repaint                what is known drawn anew at each noise level, and levels walked again (Lugmayr et al. 2022)
    score-sde              the same with Langevin steps at each level (Song et al. 2021, appendix I.2)

Known pixels come back as they were, whichever the way. Written into --out: inpaint.png, a row for each filling.
Printed: the calls of each way, and how far its fillings are from each other, in grey levels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import scoresde
from scoresde.data import to_uint8
from scoresde.guidance import inpaint
from scoresde.pictures import film

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("replacement", {"sampler": "ddim", "steps": 16}),
    "ddpm": ("replacement", {"sampler": "ddpm", "steps": 24}),
    "dpm++2m": ("replacement", {"sampler": "dpm++2m", "steps": 8}),
    "repaint": ("repaint", {"sampler": "travel", "steps": 16, "jump": 5, "repeats": 3}),
    "score-sde": ("score-sde", {"sampler": "pc", "steps": 20, "correctors": 1}),
}
FILLINGS, SEAM = 3, 14


def spread(x: torch.Tensor) -> float:
    """The standard deviation of a hidden pixel over the fillings, in grey levels, root mean square over pixels."""
    return 127.5 * float(x[..., SEAM:].var(0).mean().sqrt())


def main() -> None:
    options = argparse.ArgumentParser(description="Half a boot, painted five ways.")
    options.add_argument("--out", type=Path, default=Path("inpaint"), help="folder for the picture")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    model = scoresde.load_model()
    kind = {"y": torch.full((FILLINGS,), model.classes.index("ankle boot"))}
    shape, one = (1, *model.event_shape), {"y": kind["y"][:1]}
    boot = scoresde.sample(model.denoiser, shape, "dpm++2m", 12, seed=given.seed, cond=one).x
    known, mask = boot.expand(FILLINGS, -1, -1, -1), torch.zeros(model.event_shape)
    mask[..., SEAM:] = 1
    columns = {"a boot": known, "known": known.where(mask == 0, 0.25)}
    print(f"{'':22}calls  spread of the fillings")
    for name, (method, how) in WAYS.items():
        out = inpaint(model.denoiser, known, mask, method, seed=given.seed, cond=kind, **how)
        assert torch.equal(out.x[..., :SEAM], known[..., :SEAM])
        columns[name] = out.x
        way = f"{method}, {how['sampler']}"
        print(f"{way:22}{out.nfe:5}{spread(out.x):8.0f}", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    shown = to_uint8(model.scaler.decode(torch.stack(list(columns.values())))).numpy()
    (given.out / "inpaint.png").write_bytes(film(shown, list(columns)))
    print(f"written: {given.out / 'inpaint.png'}")


if __name__ == "__main__":
    main()
