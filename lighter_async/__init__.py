"""Writes predictions to disk in the background, so that inference loops never wait for it."""
