"""Benchmarks of full-reference metrics, and the statistics that they share."""
