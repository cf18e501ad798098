"""Ray execution: sessions, runners, training launches and job submission."""
