"""What a training will need and take on devices that nobody has yet."""
