"""Pure views: values of the API and the time become tables, badges and lines; commands and terminal app draw them."""
