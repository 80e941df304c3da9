"""Compression for machines: codecs, their real bitstreams, and how well machines read what they decode."""
