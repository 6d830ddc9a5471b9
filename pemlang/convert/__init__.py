"""What other tools say of a merge, as recipes."""

from pemlang.convert.mergekit import Converted, converted
from pemlang.convert.methods import METHODS

__all__ = ["METHODS", "Converted", "converted"]
