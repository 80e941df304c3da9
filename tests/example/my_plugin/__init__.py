"""A metric, a distortion, a machine, an encoder and a data set that the suite does not know."""
