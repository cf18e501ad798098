"""What reads the world's formats: listings of speech, requests and text."""
