"""Tables, figures and claims, made from result files alone: no network runs here, and torch is never
imported.
"""
