"""
Numerical and categorical features
==================================

The diamonds dataset has six numerical features, such as the weight, and the categorical features cut, color and
clarity. A ``ColumnTransformer`` encodes them as 26 columns, and ``ColumnLosses`` compares each kind by its own loss:
numbers by the squared error, categories by the cross-entropy of probabilities. The codes are compared with those of
factor analysis of mixed data (FAMD), which is PCA with a weight for each category. The dataset is part of the package
``plotnine``, and FAMD of the package ``prince``; 3,000 of the 53,940 samples are used.

    pip install plotnine prince && python examples/plot_mixed_table.py
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
from plotnine.data import diamonds
from prince import FAMD
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skae import AutoEncoderTransformer, ColumnLosses

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="mixed_table.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs, only to see it run")
options = parser.parse_args()

# %%
# The columns and their losses
# ----------------------------
# The losses name the steps of the ``ColumnTransformer``. Each variable has the same weight, whatever its unit and its
# number of categories.

WORDS = ["cut", "color", "clarity"]
table = diamonds.sample(3000, random_state=0).astype(dict.fromkeys(WORDS, str))
X, price = table.drop(columns="price"), np.log(table["price"])
NUMBERS = [name for name in X if name not in WORDS]
X_train, X_test, price_train, price_test = train_test_split(X, price, test_size=1000, random_state=0)

encoder = ColumnTransformer(
    [("numbers", StandardScaler(), NUMBERS), ("words", OneHotEncoder(sparse_output=False), WORDS)]
).set_output(transform="pandas")
loss = ColumnLosses([("numbers", "squared_error", "numbers"), ("words", "categorical_cross_entropy", "words")])
train, test = encoder.fit_transform(X_train), encoder.transform(X_test)
sizes = [len(categories) for categories in encoder.named_transformers_["words"].categories_]
groups = np.split(np.arange(len(NUMBERS), train.shape[1]), np.cumsum(sizes)[:-1])


# %%
# Codes and reconstructions
# -------------------------
# FAMD has no inverse: linear regression on the training samples decodes its codes, which is what PCA does.


def of_famd(k):
    """Return codes of training and test samples by FAMD, and the reconstruction of the test samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        famd = FAMD(n_components=k, random_state=0).fit(X_train)
        codes, test_codes = famd.transform(X_train), famd.transform(X_test)
    return codes, test_codes, LinearRegression().fit(codes, train).predict(test_codes)


def of_skae(k, **parameters):
    """Return the same for an autoencoder."""
    autoencoder = AutoEncoderTransformer(k, max_epochs=2 if options.quick else "auto", random_state=0, **parameters)
    codes, test_codes = autoencoder.fit_transform(train), autoencoder.transform(test)
    return codes, test_codes, autoencoder.inverse_transform(test_codes)


METHODS = {
    "FAMD": of_famd,
    "skae, squared error": of_skae,
    "skae, ColumnLosses": lambda k: of_skae(k, loss=loss),
}
MEASURES = ("variance of the numbers", "accuracy of the categories", "R² of the log of the price")


def measures(codes, test_codes, X_hat):
    """Return what is kept of the numbers and of the categories, and how well neighbors predict the price."""
    X_hat, truth, n = np.asarray(X_hat), test.to_numpy(), len(NUMBERS)
    numbers = 1 - np.square(X_hat[:, :n] - truth[:, :n]).sum() / np.square(truth[:, :n]).sum()
    right = [X_hat[:, group].argmax(axis=1) == truth[:, group].argmax(axis=1) for group in groups]
    neighbors = KNeighborsRegressor(10).fit(np.asarray(codes), price_train)
    return numbers, np.mean(right), neighbors.score(np.asarray(test_codes), price_test)


# %%
# Comparison by test samples
# --------------------------
# FAMD keeps the numbers in a few codes, and of the categories only what depends on these. An autoencoder keeps more of
# both, and with a softmax over each variable most of the categories.

SIZES = (2, 4, 8)
results = {name: np.array([measures(*method(k)) for k in SIZES]) for name, method in METHODS.items()}
for name, values in results.items():
    for k, row in zip(SIZES, values, strict=True):
        print(
            f"{name:>20} k={k}: " + ", ".join(f"{what} {value:.3f}" for what, value in zip(MEASURES, row, strict=True))
        )

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for index, (axis, label) in enumerate(zip(axes, MEASURES, strict=True)):
    for name, values in results.items():
        axis.plot(SIZES, values[:, index], marker="o", label=name)
    axis.set(xlabel="n_components", title=label, xscale="log", xticks=SIZES, xticklabels=SIZES, ylim=(0, 1))
    axis.minorticks_off()
axes[0].legend()
figure.savefig(options.out, dpi=150)
