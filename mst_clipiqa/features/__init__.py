"""Images and prompts to features of the frozen encoders, computed once and cached.

image_encoder.py   images -> features: opens in threads, encodes in batches
prompt_encoder.py  prompts -> token states
encoding.py        which views of an image the encoders see: the usual policy
opened.py          an image before the encoders, or why there is none
encoded.py         an image and a prompt after the encoders
cache.py           features on disk; cache_place.py says where
pipeline.py        work in threads, in order and in bounded memory; at_once.py bounds how much of it
"""
