"""Post-training for audio-language models in JAX."""
