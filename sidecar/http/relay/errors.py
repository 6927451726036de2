"""What a header block can do wrong."""

from __future__ import annotations


class HpackError(Exception):
    """A malformed header block: COMPRESSION_ERROR. Its decoder is of no more use."""


class ListTooLarge(Exception):
    """A header list beyond what the decoder was told to take: ENHANCE_YOUR_CALM. Its decoder is of no more use."""
