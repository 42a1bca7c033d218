"""Questions and chains of thought about captioned clips, written by a language model behind an endpoint.

templates -> endpoint (through cache, within budget) -> questions, chains: read and checked -> synthesis: the corpus.
"""
