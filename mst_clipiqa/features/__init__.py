"""Images and prompts to features: what the frozen encoders say, computed once and cached."""
