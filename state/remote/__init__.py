"""A state in a bucket behind a local one: immutable bundles and objects, and a lock that needs create-if-absent alone.

`s3://`, `gs://`, `az://` and `file://` are all the same to it (obstore). A command works on a state in the user's cache
directory, which takes in the bundles that it has not seen and sends what only it has. The lock is a lease; whoever
loses it stops sending. Nothing is ever overwritten, so that two writers at once can do work twice, and damage nothing.
"""

from lorafile.state.remote.bucket import is_url as is_url
from lorafile.state.remote.push import Sending as Sending
from lorafile.state.remote.session import Session as Session
from lorafile.state.remote.session import connect as connect
from lorafile.state.remote.session import locked as locked
from lorafile.state.remote.session import remote_of as remote_of
