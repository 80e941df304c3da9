"""``snakemake --logger mlclipsim``, which the profiles ask for: Snakemake finds plug-ins by package name."""

from mlclipsim.progress import LogHandler

__all__ = ["LogHandler"]
