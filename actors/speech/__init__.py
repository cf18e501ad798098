"""Actors on speech: ingest, synthesis, augmentation, teachers, features, trainers."""
