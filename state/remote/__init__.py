"""A state in a bucket behind a local one: immutable bundles and objects, and a lock that needs create-if-absent alone.

`s3://`, `gs://`, `az://` and `file://` are all the same to it (obstore). A command works on a state in the user's cache
directory, which takes in the bundles that it has not seen and sends what only it has. The lock is a lease; a holder
that loses it stops sending. Nothing is ever overwritten, so that two writers at once can do work twice, and damage
nothing.
"""

from lorafile.state.remote.link import has_remote as has_remote
from lorafile.state.remote.link import is_url as is_url
