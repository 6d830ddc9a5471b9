"""The version of the tool and the language it reads, for every room."""

__version__ = "0.1.0"
LANGUAGE = 1
