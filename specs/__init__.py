"""The language: TOML to a typed study spec."""

from lorafile.specs.configurations import Configuration as Configuration
from lorafile.specs.load import Spec as Spec
from lorafile.specs.load import load as load
from lorafile.specs.load import parse as parse
