"""N-gram models as arrays, and their compact store, which scores text and words that are searched for in speech."""
