"""Plots of fitted autoencoders, as Display classes that follow the conventions of scikit-learn."""
