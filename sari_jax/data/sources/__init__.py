"""Where corpora come from: one file per source and one line here."""

from sari_jax.data.sources import starter

SOURCES = {"starter": starter.build}
