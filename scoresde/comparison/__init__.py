"""Samplers side by side: the same model and noise, several budgets of network calls, one page that shows it all.

>>> import scoresde
>>> found = compare(scoresde.load_model("datasaurus"), ["ddim", "ipndm"], [5, 10], num=4)
>>> found.budgets, found.samplers, len(found.runs)
([5, 10], ['ddim', 'ipndm'], 4)
"""

from scoresde.comparison.plan import Draw, Planned, plan
from scoresde.comparison.quality import Ruler
from scoresde.comparison.run import Comparison, Run, compare

__all__ = ["Comparison", "Draw", "Planned", "Ruler", "Run", "compare", "plan"]
