"""The store of finished work: an index (SQLite) and objects under their sha256, addressed by what they were made of.

Here is what reads and writes them, and what `lora state` does with them. The store knows keys, names and rows; it
knows no study, plan or graph: their keys and names are passed in.
"""

from lorafile.state.objects import Objects as Objects
from lorafile.state.records import EQUAL_DATA as EQUAL_DATA
from lorafile.state.records import EQUAL_SETTINGS as EQUAL_SETTINGS
from lorafile.state.records import Acceptance as Acceptance
from lorafile.state.records import Attempt as Attempt
from lorafile.state.records import Node as Node
from lorafile.state.store import State as State
from lorafile.state.store import WritableState as WritableState
