"""From one request to choices: the plan, the native calls, and what their messages add up to."""
