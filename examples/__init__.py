"""Complete services around Rowcast; none of them is installed with it."""
