"""Compression for machines: codecs, their training for what machines see, and rate-task curves."""
