"""Training by gradient descent: the one loop, and what a subject's training gives to it."""
