"""Problems to learn: the product's own tasks, synthetic ones of any shape, files, Hugging Face data sets."""
