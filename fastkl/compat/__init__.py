"""Functions of other libraries, computed by fastkl: with the same names, signatures, defaults and results.

    scipy.py     scipy.stats.entropy, scipy.spatial.distance.jensenshannon, sums of scipy.special.rel_entr and kl_div
    sklearn.py   sklearn.metrics.log_loss and mean_poisson_deviance
    torch.py     torch.nn.functional.kl_div
    sums.py      the sums of scipy.py
    arrays.py    what these share

The libraries need not be installed, except torch, whose tensors torch.py takes and returns. docs/howto has a page
for each library, which lists the results that differ on purpose. The signatures are those of SciPy 1.17, scikit-learn 1.9
and torch 2.13.
"""

from . import scipy, sklearn, torch

__all__ = ["scipy", "sklearn", "torch"]
