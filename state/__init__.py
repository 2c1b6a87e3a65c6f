"""The store: finished work, addressed by what it was made of."""

from lorafile.state.objects import Objects as Objects
from lorafile.state.records import Acceptance as Acceptance
from lorafile.state.records import Attempt as Attempt
from lorafile.state.records import Node as Node
from lorafile.state.store import State as State
from lorafile.state.store import WritableState as WritableState
