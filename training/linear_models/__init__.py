"""Linear maps in closed form: ridge regression, discriminants, principal components."""
