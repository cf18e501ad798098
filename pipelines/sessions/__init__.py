"""The recipes that learn from sessions, part by part."""
