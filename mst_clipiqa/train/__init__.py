"""From a rated set to a model folder.

features.py    records, frozen encoders ....... -> rows of features
fit.py         features, ratings, recipe ...... -> the best epoch on validation
build.py       rated set, split, recipe ....... -> model folder, then its measure on the test part
card.py        configuration, measures ........ -> README.md of the folder
curves.py      history, predictions ........... -> images
convert.py     the authors' checkpoint ........ -> model folder
"""
