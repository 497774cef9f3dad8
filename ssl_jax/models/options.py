"""Valid values of the encoders' options, for the encoders and for the checks of a config."""

STEMS = ("imagenet", "cifar")  # of ResNets
PADDINGS = ("torch", "simclr", "same")  # of ResNets
POSITIONS = ("sincos", "learned")  # of ViTs
POOLS = ("token", "mean")  # of ViTs
VISIBLE = ("bernoulli", "gaussian")  # of deep belief networks
