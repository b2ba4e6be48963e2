"""From a trained network to what runs elsewhere: one folded graph, and the forms made from it."""
