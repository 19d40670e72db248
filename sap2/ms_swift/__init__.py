"""The only part that knows ms-swift: flags, loader, template and their registration."""
