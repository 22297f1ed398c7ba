"""Load client: streams tokens from an OpenAI-compatible server and records when each arrived.

Nothing is imported here: client processes start through this package and must be up in a tenth of a second.
"""
