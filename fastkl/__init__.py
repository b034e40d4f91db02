"""placeholder."""
from ._build import build_info, choose_tier, limit_threads
from ._version import __version__
from .measures import cross_entropy, entropy, kl_divergence

choose_tier()
limit_threads()
