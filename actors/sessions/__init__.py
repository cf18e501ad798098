"""Actors on turns of sessions: reading, simulation, pairs, projection, transitions, skills, goals, teaching."""
