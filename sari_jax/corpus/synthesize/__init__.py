"""Questions and chains of thought about captioned clips, written by a language model behind an endpoint.

templates -> endpoint (with cache and budget) -> questions, chains (parsed and checked) -> synthesis (the corpus)
"""
