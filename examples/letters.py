"""Words by diffusion of their letters' embeddings, and a classifier that asks for a number of vowels.

    python examples/letters.py

After Diffusion-LM (Li et al. 2022): each letter is a point in R^d, learned together with the denoiser, a word is a
sequence of them with Gaussian noise added, and what is drawn is rounded to the nearest letter. The loss is that of
their section 4.1 in its simplest form: the error of x̂_0, and the cross-entropy of rounding it, which keeps the
embeddings apart. The words are those of a small grammar, one to three syllables of a consonant and a vowel, some closed
by an n, padded with dots; their attribute is the number of vowels. A second network learns p(attribute | x_t, t), and
its gradient steers the same denoiser (their section 5): the share of words with the number that was asked goes up, and
what is drawn stays a word.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import scoresde
from scoresde.guidance import classifier_guidance
from scoresde.nn import MLP, PointEncoder

LETTERS = ".aeioubdgklmnprst"
VOWELS, CONSONANTS, LENGTH, MOST = "aeiou", "bdgklmprst", 9, 3
WIDTH = 8  # of an embedding
SDE = scoresde.VPSDE()


def words(n: int, seed: int) -> Tensor:
    """Random words of the grammar, as places in LETTERS, (n, LENGTH)."""
    pick = torch.Generator().manual_seed(seed)

    def one_of(letters: str) -> str:
        return letters[int(torch.randint(len(letters), (1,), generator=pick))]

    rows: list[list[int]] = []
    for _ in range(n):
        syllables = int(torch.randint(1, MOST + 1, (1,), generator=pick))
        word = "".join(one_of(CONSONANTS) + one_of(VOWELS) + one_of("n....") for _ in range(syllables)).replace(".", "")
        rows.append([LETTERS.index(letter) for letter in word.ljust(LENGTH, ".")])
    return torch.tensor(rows)


def spelled(rows: Tensor) -> list[str]:
    return ["".join(LETTERS[i] for i in row).rstrip(".") for row in rows.tolist()]


def vowels(rows: Tensor) -> Tensor:
    """The attribute: how many vowels each word has, from 0."""
    return sum((rows == LETTERS.index(v)).sum(1) for v in VOWELS)  # pyright: ignore[reportReturnType]


def in_grammar(word: str) -> bool:
    import re

    return re.fullmatch(rf"(?:[{CONSONANTS}][{VOWELS}]n?){{1,{MOST}}}", word) is not None


class Embedding(nn.Module):
    """Letters as points of mean square 1 for each number; events are (WIDTH, LENGTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(len(LETTERS), WIDTH))

    def table(self) -> Tensor:
        return F.normalize(self.points, dim=1) * WIDTH**0.5

    def forward(self, rows: Tensor) -> Tensor:
        return self.table()[rows].transpose(1, 2)

    def logits(self, x: Tensor) -> Tensor:
        """Of each letter at each place, from the squared distance: (n, letters, LENGTH)."""
        return -0.5 * torch.cdist(x.transpose(1, 2), self.table()).square().transpose(1, 2)

    def rounded(self, x: Tensor) -> Tensor:
        return self.logits(x).argmax(1)


def descend(parameters: list[nn.Parameter], loss: Callable[[int], Tensor], steps: int, lr: float) -> None:
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        optimiser.zero_grad(set_to_none=True)
        loss(step).backward()
        optimiser.step()
        rate.step()


def main() -> None:
    options = argparse.ArgumentParser(description="Words by diffusion, with as many vowels as asked.")
    options.add_argument("--steps", type=int, default=600, help="of the denoiser; the classifier has half as many")
    options.add_argument("--num", type=int, default=100, help="words for each number of vowels")
    given = options.parse_args()
    torch.manual_seed(0)
    data = words(4000, seed=0)
    attribute = vowels(data) - 1
    embedding = Embedding()
    network = MLP((WIDTH, LENGTH), width=256, depth=3, scales=[])
    denoiser = scoresde.Denoiser(network, SDE, "x0", time="t")
    batch = 128

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows = torch.randint(len(data), (batch,))
        t = SDE.t_min + (SDE.t_max - SDE.t_min) * (torch.arange(batch) + torch.rand(())) / batch
        return data[rows], attribute[rows], t, torch.randn(batch, WIDTH, LENGTH)

    def loss(step: int) -> Tensor:
        rows, _, t, noise = draw(step)
        x0 = embedding(rows)
        found = denoiser.output(SDE.perturb(x0, t, noise), t)
        return (found - x0).square().mean() + F.cross_entropy(embedding.logits(found), rows)

    descend([*embedding.parameters(), *network.parameters()], loss, given.steps, 3e-3)
    embedding.requires_grad_(False)
    encoder = PointEncoder((WIDTH, LENGTH), MOST, width=128, depth=2, scales=[])
    classifier = scoresde.NoisyClassifier(encoder, SDE, tuple("123"), (WIDTH, LENGTH), time="t")

    def classifier_loss(step: int) -> Tensor:
        rows, y, t, noise = draw(step)
        return F.cross_entropy(classifier.logits(SDE.perturb(embedding(rows), t, noise), t), y)

    descend(list(encoder.parameters()), classifier_loss, given.steps // 2, 3e-3)
    network.eval().requires_grad_(False)
    encoder.eval().requires_grad_(False)

    y = torch.arange(MOST).repeat_interleave(given.num)
    for w in (0.0, 1.0, 2.0, 4.0):
        guided = classifier_guidance(denoiser, classifier, w)
        out = scoresde.sample(guided, (len(y), WIDTH, LENGTH), "ddim", 40, cond={"y": y})
        rows = embedding.rounded(out.x)
        drawn = spelled(rows)
        right = float((vowels(rows) - 1 == y).double().mean())
        valid = sum(map(in_grammar, drawn)) / len(drawn)
        print(f"w = {w:g}: {right:.0%} have the vowels asked, {valid:.0%} are words, {len(set(drawn))} different")
        for k in range(MOST):
            print(f"   {k + 1}: {' '.join(drawn[k * given.num : k * given.num + 8])}")


if __name__ == "__main__":
    main()
