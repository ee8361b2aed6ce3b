"""Network namespaces, and the links, addresses and routes that make a lab of them."""
