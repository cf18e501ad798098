"""Acoustic models, their losses and decoders, features, noises and rooms."""
