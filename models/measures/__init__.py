"""What results are measured by: error rates, calibration, intervals and tests of significance."""
