"""Time attention alone, against softmax and against other packages."""
