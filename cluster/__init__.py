"""Where it runs: sessions, the runners, training launches and job submission."""
