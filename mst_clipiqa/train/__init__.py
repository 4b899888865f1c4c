"""From a rated set to a model folder.

job.py            what is asked to be trained
features.py       records, frozen encoders ....... -> rows of features
recipe.py         flags .......................... -> how to train, checked
fit.py            features, ratings, recipe ...... -> the best epoch on validation
scale.py          scores of a prompt head ........ -> the same on the scale of the ratings
preferences.py    pairs of images ................ -> what they add to the loss
checkpoint.py     the state after an epoch ....... -> a file, and back
identity.py       what a training sees ........... -> what tells it from others, in its checkpoint
experiment_log.py each epoch ..................... -> TensorBoard or Weights & Biases
build.py          rated set, split, recipe ....... -> model folder, then its results on the test part
learn.py          training, validation ........... -> the fitted and calibrated model
measure.py        saved model, test part ......... -> how well it does
intervals.py      residuals, features ............ -> familiarity and intervals
granularity.py    every granularity .............. -> how little of an image is enough
agreement.py      scores, records ................ -> agreement with the ratings, and that of a baseline
joining.py        a target, a folder ............. -> the folder's model with this target
contamination.py  records, hashes ................ -> how much of a test part was seen before
training_file.py  how each target was trained .... -> training.json, and back
card.py           configuration, results ......... -> README.md of the folder
front_matter.py   the same ....................... -> what the Hugging Face hub reads of it
curves.py         history, predictions ........... -> figures
convert.py        the authors' checkpoint ........ -> model folder
"""
