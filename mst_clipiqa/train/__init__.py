"""From a rated set to a model folder.

features.py    records, frozen encoders ....... -> rows of features
fit.py         features, ratings, recipe ...... -> the best epoch on validation
build.py       rated set, split, recipe ....... -> model folder, then its results on the test part
contamination  records, hashes ................ -> how much of a test part was seen before
card.py        configuration, results ......... -> README.md of the folder
curves.py      history, predictions ........... -> figures
convert.py     the authors' checkpoint ........ -> model folder
"""
