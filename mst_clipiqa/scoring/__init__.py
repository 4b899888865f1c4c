"""Features to scores, and scores to rows.

score.py            what is asked of a scorer, and what it returns
scorer.py           images in, scores out
folders.py          the name of a model -> its folder
saving.py           a model -> a folder, or the hub
loading.py          a folder and options -> the parts of a scorer
reloading.py        a scorer in another process
predictor.py        features -> every target
answers.py          negative prompt, reference image, control map -> one number each; edges.py computes the last
controls.py         flags and columns -> the negative prompt, reference and control map of each image
score_rows.py       scores -> rows; metadata_columns.py adds how images were generated
resume.py           continues a run that stop.py stopped between two batches
granularity.py      how much of an image is encoded; granularity_choice.py chooses, granular_encoding.py encodes,
                    granularity_tally.py counts
calibration.py      what that changes, by measurement; fine_estimator.py and risk.py decide by it
calibration_file.py a calibration -> a file, and back
differentiable.py   pixels -> one target, with gradients
onnx_export.py      image encoders for ONNX Runtime
"""
