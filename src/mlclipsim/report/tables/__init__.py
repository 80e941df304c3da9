"""One file per table, of the same name as its target."""
