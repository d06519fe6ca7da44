"""Training an audio network without labels: which sound belongs to which picture (Harwath et al. 2018).

matchmap.py      how well each picture of a batch fits each sound
losses.py        what is to be made small
retrieval.py     how often the right partner is found
networks.py      the picture's side and the sound's side, trained together
train.py         the loop: batches, learning rate, checkpoints, early stop
"""
