"""The data plane: schemas, index, commit, seal, audit, over fsspec. No Ray, no torch."""
