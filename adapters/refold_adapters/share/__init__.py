"""A directory that replicas share (a network share, a stick) as a peer, `dir:///path`: files that never change."""

from .segments import Header, Segment, SegmentRefused, plan
from .side import ShareSide, open_peer

__all__ = ["Header", "Segment", "SegmentRefused", "ShareSide", "open_peer", "plan"]
