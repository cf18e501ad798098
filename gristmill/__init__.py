"""Gristmill: large raw corpora into training data, and training data into models, on Ray.

The rooms (``gristmill.shards``, ``models``, ``actors``, ``cluster``, ``pipelines``) lie at the top of the checkout and
are linked here, so that everything has one name whether it is run from a checkout, a wheel or Ray's working folder.

Importing it pins what numpy, torch and other libraries that are loaded later compute with
(:mod:`gristmill.shards.processor`).
"""

from gristmill.shards import processor

processor.pin()
