"""What the user named (files, folders, lists) to images with prompts."""
