"""From a plan to choices, for every endpoint that generates text: native calls, and what their messages add up to."""
