"""Functions that other libraries have, computed by fastkl: the same names, signatures, defaults and results.

    scipy.py     scipy.stats.entropy, scipy.spatial.distance.jensenshannon, sums of scipy.special.rel_entr
    sklearn.py   sklearn.metrics.log_loss
    torch.py     torch.nn.functional.kl_div

None of these libraries is needed, but for the tensors that torch.py takes and returns. docs/compat.md says where results
differ from the originals', on purpose. Whose signatures they are: SciPy 1.17, scikit-learn 1.9, torch 2.13.
"""

from . import scipy, sklearn, torch

__all__ = ["scipy", "sklearn", "torch"]
