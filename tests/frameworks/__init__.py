"""Frameworks that speak OpenAI's API, against a native model that answers by what really arrived."""
