"""Train, use and honestly time VGG networks on MNIST and images like it."""

__version__ = "0.1.0"
