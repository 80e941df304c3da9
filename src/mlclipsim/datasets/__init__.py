"""Where images come from, and which role each photograph plays."""
