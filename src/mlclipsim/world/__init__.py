"""The embedded world: rendered scenes, and the small networks that were trained on them and ship with the package."""
