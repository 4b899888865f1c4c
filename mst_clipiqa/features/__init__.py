"""Images and prompts to features of the frozen encoders, computed once and cached."""
