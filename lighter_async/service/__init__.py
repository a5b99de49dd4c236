"""The background writer: takes samples over, bounded, and has them written in the background."""

from lighter_async.service.lifecycle import State
from lighter_async.service.names_and_indices import text_of, texts_of
from lighter_async.service.nonblocking_steps import Steps
from lighter_async.service.writer import BackgroundWriter

__all__ = ["BackgroundWriter", "State", "Steps", "text_of", "texts_of"]
