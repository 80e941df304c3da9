"""ML-CLIPSim in the forms that other libraries expect; each file needs the library whose name it has."""
