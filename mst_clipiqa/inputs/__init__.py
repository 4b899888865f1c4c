"""What the user named (files, folders, lists) to images with prompts.

expand.py         what was named -> one item (item.py) per image
sources.py        what may be named: a folder, a list or an image; item_maker.py: an image of theirs -> an item
folders.py        the images of a folder, in order
lists.py          rows of a table or text file; json_lists.py: of one JSON value; stdin.py: of a pipe
list_columns.py   which columns of a list hold files and prompts
prompt_choice.py  which prompt an image gets
prompts.py        prompts from a file; beside.py: from the image, the text beside it or a name
prompt_syntax.py  a generator's syntax around the words, removed
generation.py     how an image was generated, from its file (generation_fields.py, comfyui.py)
each_frame.py     animated images as one item per frame
hints.py          what a user may have overlooked
"""
