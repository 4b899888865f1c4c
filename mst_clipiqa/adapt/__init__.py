"""A trained model and images of another domain, without ratings -> a model folder, if it is better there.

moving.py    what moves: the fusion, normalisation, or thin matrices beside the encoders' own
ladders.py   images, and versions of them distorted more and more
signal.py    what else is known of them: other models' scores
losses.py    ranking inside a ladder, agreement of crops, an anchor to the model before
fit.py       the loop
gate.py      did held-out ladders or the agreement with ratings improve, and did neither become worse?
job.py       what all of it works on
build.py     all of it, and the new folder
card.py      its README.md
"""
