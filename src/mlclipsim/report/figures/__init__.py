"""One file per figure, of the same name as its target."""
