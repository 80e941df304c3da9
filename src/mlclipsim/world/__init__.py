"""The embedded world: rendered scenes, and the small networks trained on them that ship with the package."""
