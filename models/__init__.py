"""The mathematics: networks, losses, decoders, metrics, rooms. No Ray, no input or output."""
