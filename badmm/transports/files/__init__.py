"""Files in a folder that both sides mount: for sites without an open port, where a person may look at what leaves.

The server has no clients. It writes a message, reads the sites' replies to it, and adds them up; what is late,
repeated, damaged, foreign or unusable is refused, logged with site and reason, and counts as absent. An absent site's
term in a sum is the last one that was accepted: its clients keep λ_k and η_k, so that nothing of it is lost (at α = 1 a
site that never answered counts as η_k = 0). Either side may be killed and started again: the server goes on from its
checkpoint, a site from its `memory`, and a question that was asked before gets the answer that it got.
"""

from badmm.transports.files.server import FilesServer
from badmm.transports.files.site import FilesSite

__all__ = ["FilesServer", "FilesSite"]
