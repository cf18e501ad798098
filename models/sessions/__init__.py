"""Models that learn from sessions: failures, rephrases, rewrites, right skills, goals, unknown words."""
