"""Values of the encoders' options, for the encoders, for configs and for imported weights."""

STEMS = ("imagenet", "cifar")  # of ResNets
PADDINGS = ("torch", "simclr", "same")  # of ResNets
COLORS = ("rgb", "lightness", "lab")  # of ResNets
NORMS = ("batch", "layer", "none")  # of ResNets
FRAME_NORMS = ("none", "channel")  # of encoders of sound
POSITIONS = ("sincos", "learned")  # of ViTs
POOLS = ("token", "mean")  # of ViTs
VISIBLE = ("bernoulli", "gaussian")  # of deep belief networks
KINDS = ("dense", "convolutional")  # of stacked autoencoders

# Mean and standard deviation of ImageNet's pixels in [0, 1], as torchvision rounds them.
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
