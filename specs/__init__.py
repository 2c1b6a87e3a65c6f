"""The language: a TOML document becomes a typed study spec, or a list of located problems.

Here belong the settings (`tables`), what types alone cannot check (`checks`), the configurations that sweeps and tuned
settings declare (`sweeps`), and the schema and reference made from them. Nothing here opens models, data or a state.
"""

from lorafile.specs.configurations import Configuration as Configuration
from lorafile.specs.load import Spec as Spec
from lorafile.specs.load import load as load
from lorafile.specs.load import parse as parse
