"""The version, apart from everything that needs the compiled core: the build reads it too."""

__version__ = "0.1.0"
