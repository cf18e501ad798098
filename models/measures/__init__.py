"""Metrics and statistics of results: error rates, calibration, intervals and tests of significance."""
