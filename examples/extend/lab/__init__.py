"""Extensions of three sizes; docs/extend.md shows and explains them."""
