"""A package, so that its stacks, fixtures with the scope "package", stop when another folder's tests begin."""
