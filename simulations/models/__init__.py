"""Model families whose architecture an experiment sets."""
