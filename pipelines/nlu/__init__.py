"""What several recipes on requests share: corpora, and trainings of domain models and re-rankers."""
