package command

var genericRows = []Row{}
